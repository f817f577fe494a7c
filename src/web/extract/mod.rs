//! What handlers ask for: strict forms, the browser's cookies, the client's address.

pub(in crate::web) mod browser;
pub(in crate::web) mod client_ip;
pub(in crate::web) mod csrf;
pub(in crate::web) mod form;
