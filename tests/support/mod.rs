//! What the flows are written with.

pub mod app;
pub mod browser;
pub mod disk;
pub mod installation;
pub mod invariants;
pub mod log;
pub mod lossy_proxy;
pub mod op;
pub mod own_postgres;
pub mod pgbouncer;
pub mod postgres;
pub mod race;
pub mod raw_http;
pub mod refreshing;
pub mod relying_party;
pub mod resources;
pub mod reverse_proxy;
pub mod wait;
pub mod way;
pub mod webdriver;

/// Runs each test on SQLite and on PostgreSQL. `op` starts in production mode; `op with [..]` takes settings.
macro_rules! on_both_databases {
    ($( $(#[doc = $doc:literal])* fn $name:ident($op:ident $(with $settings:expr)?) $body:block )+) => {
        mod sqlite {
            #[allow(unused_imports, reason = "settings may name constants of the module")]
            use super::*;
            $( #[test] fn $name() {
                super::$name(crate::support::op::Op::start(crate::support::op::Database::Sqlite, &{ let settings: Vec<&[(&str, &str)]> = vec![$(&$settings[..])?]; settings.concat() }));
            } )+
        }
        mod postgres {
            #[allow(unused_imports, reason = "settings may name constants of the module")]
            use super::*;
            $( #[test] fn $name() {
                if crate::support::postgres::cluster().is_some() {
                    super::$name(crate::support::op::Op::start(crate::support::op::Database::Postgres, &{ let settings: Vec<&[(&str, &str)]> = vec![$(&$settings[..])?]; settings.concat() }));
                }
            } )+
        }
        $( $(#[doc = $doc])* fn $name($op: crate::support::op::Op) $body )+
    };
}
pub(crate) use on_both_databases;
