//! What handlers ask for: strict forms, an authenticated client, the browser's cookies, the address of whoever asks.

pub(in crate::web) mod browser;
pub(in crate::web) mod client;
pub(in crate::web) mod client_ip;
pub(in crate::web) mod csrf;
pub(in crate::web) mod form;
pub(in crate::web) mod guessing;
pub(in crate::web) mod trail;
