//! PostgreSQL as some operate it: behind a proxy that stops, and in a language of its own. Row R11.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::thread;

use diesel::connection::SimpleConnection as _;
use diesel::{Connection as _, PgConnection};
use tempfile::TempDir;

use crate::faults::{connect, prepared, well_again};
use crate::support::installation::Installation;
use crate::support::invariants::assert_sound;
use crate::support::postgres::{self, Cluster};
use crate::support::relying_party::{Answer, Rp};
use crate::support::wait::eventually;
use crate::support::way::Way;

/// All refresh at once; answers how many have to come again, and what everybody holds then.
fn refresh_all(rp: &Rp, chains: Vec<Answer>) -> (usize, Vec<Answer>) {
    let answers: Vec<_> = thread::scope(|scope| {
        let refresh = |tokens: &Answer| rp.refresh(tokens.refresh_token(), &[]);
        let asking: Vec<_> = chains
            .iter()
            .map(|tokens| scope.spawn(move || refresh(tokens)))
            .collect();
        asking.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let mut refused = 0;
    let next = |(before, answer): (Answer, Answer)| {
        if answer.status == 200 {
            return answer;
        }
        assert_eq!(answer.error(), (503, "temporarily_unavailable"));
        assert!(answer.headers.contains_key("retry-after"));
        refused += 1;
        before
    };
    let held = chains.into_iter().zip(answers).map(next).collect();
    (refused, held)
}

fn all_go_on(rp: &Rp, chains: &[Answer]) -> Vec<Answer> {
    chains.iter().map(|tokens| well_again(rp, tokens)).collect()
}

#[test]
fn r11_connections_that_stay_open_without_an_answer_for_ever_are_replaced() {
    let Some(cluster) = postgres::cluster() else {
        return;
    };
    let mut way = Way::to(&cluster.directory);
    let url = way.url(&cluster.create_database(None));
    let (installation, rp) = prepared(Installation::on_postgres(url));
    let server = installation.start();
    // More than the threads that wait for PostgreSQL on the machines that tests run on, so that each has its connection.
    let chains: Vec<_> = (0..40).map(|_| connect(&rp)).collect();
    let (refused, chains) = refresh_all(&rp, chains);
    assert_eq!(refused, 0);
    let threads = server.threads();
    way.fall_silent();
    let (refused, chains) = refresh_all(&rp, chains);
    assert!(
        refused > 0,
        "the database is away for those who asked on them"
    );
    assert_eq!(rp.get("/livez").status, 200);
    assert_eq!(rp.get("/jwks").status, 200);
    // Nobody ever answers on the old ones, and nobody ends them.
    let chains = all_go_on(&rp, &chains);
    assert!(
        server
            .log()
            .contains("gives no answer on a connection that stays open"),
        "{}",
        server.log()
    );
    way.cut();
    way.open_again();
    let chains = all_go_on(&rp, &chains);
    eventually("those that waited are gone", || {
        (server.threads() <= threads).then_some(())
    });
    // And once more, as often as it happens.
    way.fall_silent();
    let (refused, chains) = refresh_all(&rp, chains);
    assert!(refused > 0);
    all_go_on(&rp, &chains);
    assert_sound(&installation.store());
}

/// A PostgreSQL whose messages are German; `None` where that can't be had.
fn german() -> Option<(TempDir, Cluster)> {
    postgres::cluster()?;
    let folder = TempDir::new().unwrap();
    // Open to the account that PostgreSQL runs as.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let locale = folder.path().join("de_DE.UTF-8");
    let made = Command::new("localedef")
        .args(["-i", "de_DE", "-f", "UTF-8"])
        .arg(&locale)
        .output();
    // It warns of what it does not know, with exit code 1.
    if !locale.join("LC_MESSAGES/SYS_LC_MESSAGES").exists() {
        assert!(env::var_os("CI").is_none(), "no German locale: {made:?}");
        eprintln!("left out: no German locale can be made here ({made:?})");
        return None;
    }
    let path = folder.path().to_str().unwrap();
    let settings = ["fsync=off", "lc_messages=de_DE.UTF-8"];
    let cluster = postgres::start_with(folder.path(), &settings, &[("LOCPATH", path)]).unwrap();
    Some((folder, cluster))
}

#[test]
fn r11_a_postgresql_that_speaks_another_language_is_understood() {
    let Some((_folder, cluster)) = german() else {
        return;
    };
    let url = cluster.create_database(None);
    let (installation, rp) = prepared(Installation::on_postgres(url.clone()));
    let mut operator = PgConnection::establish(&url).unwrap();
    let german = operator.batch_execute("SELECT 1 FROM nothing").unwrap_err();
    assert!(german.to_string().contains("existiert nicht"), "{german}");
    let server = installation.start();
    let tokens = connect(&rp);
    operator
        .batch_execute("BEGIN; LOCK TABLE refresh_tokens IN ACCESS EXCLUSIVE MODE")
        .unwrap();
    let refused = thread::scope(|scope| {
        let refreshing = scope.spawn(|| rp.refresh(tokens.refresh_token(), &[]));
        let mut administrator = PgConnection::establish(&url).unwrap();
        eventually("it is ended as by a time limit", || {
            let waits = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
            administrator.batch_execute(waits).unwrap();
            refreshing.is_finished().then_some(())
        });
        refreshing.join().unwrap()
    });
    assert_eq!(refused.error(), (503, "temporarily_unavailable"));
    assert!(refused.headers.contains_key("retry-after"));
    operator.batch_execute("ROLLBACK").unwrap();
    assert!(
        server.log().contains("storniere Anfrage"),
        "{}",
        server.log()
    );
    let tokens = rp.refresh(tokens.refresh_token(), &[]);
    assert_eq!(tokens.status, 200, "{}", tokens.json);
    // What no waiting cures is told as that.
    operator
        .batch_execute("ALTER TABLE refresh_tokens RENAME COLUMN issued_at TO begun_at")
        .unwrap();
    let failed = rp.refresh(tokens.refresh_token(), &[]);
    assert_eq!(failed.error(), (500, "server_error"));
    operator
        .batch_execute("ALTER TABLE refresh_tokens RENAME COLUMN begun_at TO issued_at")
        .unwrap();
    assert_eq!(rp.refresh(tokens.refresh_token(), &[]).status, 200);
    assert_sound(&installation.store());
}
