//! Whether a file fits to what is in the database, before anything is written.

use std::collections::BTreeSet;

use super::mistakes::{Mistake, Place};
use super::{CheckedUser, Seed};
use crate::protocol::client::Client;
use crate::protocol::grants::GrantType;
use crate::store::{AnyConnection, StoreError, clients, scopes, users};

/// Everything that does not fit. Of a file with mistakes it is told too, as far as those leave something to look at.
pub(super) fn misfits(
    conn: &mut AnyConnection,
    seed: &Seed,
    prune: bool,
) -> Result<Vec<Mistake>, StoreError> {
    let mut mistakes = Vec::new();
    for checked in &seed.users {
        mistakes.extend(wrong_sub(conn, checked)?);
    }
    unknown_members(conn, seed, prune, &mut mistakes)?;
    if prune {
        users_of_scopes_that_go(conn, seed, &mut mistakes)?;
    }
    Ok(mistakes)
}

/// A `sub` stays whose it is: apps know people by nothing else.
fn wrong_sub(
    conn: &mut AnyConnection,
    checked: &CheckedUser,
) -> Result<Option<Mistake>, StoreError> {
    let Some(sub) = &checked.entry.sub else {
        return Ok(None);
    };
    let problem = match users::find_by_email(conn, checked.email.key())? {
        Some(earlier) if earlier.id == *sub => None,
        Some(earlier) => Some(format!(
            "{} has the sub {:?}, which never changes",
            earlier.email, earlier.id
        )),
        None => users::find(conn, sub)?.map(|other| format!("{sub:?} is {}", other.email)),
    };
    Ok(problem.map(|problem| checked.place.mistake("sub", problem)))
}

/// Whoever is in a group is in the file, or there already.
fn unknown_members(
    conn: &mut AnyConnection,
    seed: &Seed,
    prune: bool,
    mistakes: &mut Vec<Mistake>,
) -> Result<(), StoreError> {
    let in_file: BTreeSet<_> = seed.users.iter().map(|user| user.email.key()).collect();
    let going = if prune {
        users::managed(conn)?
    } else {
        Vec::new()
    };
    let going: BTreeSet<_> = going.iter().map(|user| user.email_key.as_str()).collect();
    for group in &seed.groups {
        for (index, email) in group.members.iter().flatten() {
            if in_file.contains(email.key()) {
                continue;
            }
            let name = email.display();
            let problem = match users::find_by_email(conn, email.key())? {
                None => format!("nobody has the address {name}"),
                Some(_) if going.contains(email.key()) => {
                    format!("{name} is not among users, so --prune removes them")
                }
                Some(_) => continue,
            };
            let field = format!("members[{index}]");
            mistakes.push(group.place.mistake(&field, problem));
        }
    }
    Ok(())
}

/// Who may ask for a scope that goes has to be told first: a client that names what nobody knows could not be written again.
fn users_of_scopes_that_go(
    conn: &mut AnyConnection,
    seed: &Seed,
    mistakes: &mut Vec<Mistake>,
) -> Result<(), StoreError> {
    let stay: BTreeSet<_> = seed.scopes.iter().map(|scope| &scope.name).collect();
    let mut going = scopes::managed(conn)?;
    going.retain(|name| !stay.contains(name));
    if going.is_empty() {
        return Ok(());
    }
    let in_file: BTreeSet<_> = seed
        .clients
        .iter()
        .map(|app| &app.client.client_id)
        .collect();
    let mut others = clients::list(conn)?;
    let pruned = clients::managed(conn)?;
    others.retain(|app| !in_file.contains(&app.client_id) && !pruned.contains(&app.client_id));
    for name in going {
        for app in seed.clients.iter().filter(|app| names(&app.client, &name)) {
            let problem = format!("{name:?} is not among scopes, so --prune removes it");
            mistakes.push(app.place.mistake("scope", problem));
        }
        for app in others.iter().filter(|app| names(app, &name)) {
            let id = &app.client_id;
            let problem = format!("{name:?} is not in the file, but the client {id} names it");
            mistakes.push(Place::at("scopes").mistake("", problem));
        }
    }
    Ok(())
}

fn names(app: &Client, scope: &str) -> bool {
    let own = app.scope.as_ref();
    own.is_some_and(|own| own.contains(scope)) && !app.may_use(GrantType::ClientCredentials)
}
