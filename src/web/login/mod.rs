//! The pages between an app's request and its answer.

pub(super) mod account_chooser;
pub(super) mod consent;
pub(super) mod sign_in;
pub(super) mod sign_out;
pub(super) mod transaction;
