//! Whether every instance could follow every other one: it logs in there with its `masterauth`.
//!
//! Passwords are compared, and only what came of it is said.

use std::collections::BTreeSet;

use failover_core::addr::Addr;
use secrecy::ExposeSecret;

use super::super::answers::{Answers, Parameter};
use super::super::finding::{Code, Finding};
use super::{Case, listed};

/// Whether `from` could log in at `to`; `None` when too little is known.
fn gets_in(from: &Answers, to: &Answers) -> Option<bool> {
    let password = from.passwords.get(&Parameter::MasterAuth)?;
    if password.expose_secret().is_empty() {
        return to.is_open();
    }
    // Servers before Redis 6 do not have the setting.
    let user = from.text(Parameter::MasterUser).filter(|user| !user.is_empty());
    match to.accounts.get(user.unwrap_or("default")) {
        Some(Some(account)) => Some(account.lets_in(password, user.is_some())),
        Some(None) => Some(false),
        None if user.is_some() => None,
        None => {
            let wanted = to.passwords.get(&Parameter::RequirePass)?.expose_secret();
            (!wanted.is_empty()).then(|| wanted == password.expose_secret())
        }
    }
}

fn pairs<'a>(case: &Case<'a>) -> Vec<(&'a Addr, &'a Answers, &'a Addr, &'a Answers)> {
    let told: Vec<_> = case.told().collect();
    let of = |(from, one): (&'a Addr, &'a Answers)| {
        told.iter()
            .filter(move |(to, _)| *to != from)
            .map(move |(to, other)| (from, one, *to, *other))
            .collect::<Vec<_>>()
    };
    told.iter().flat_map(|pair| of(*pair)).collect()
}

pub(super) fn mismatch(case: &Case<'_>) -> Vec<Finding> {
    let pairs = pairs(case);
    case.each(|addr, answers| {
        let closed: Vec<String> = pairs
            .iter()
            .filter(|(from, ..)| *from == addr)
            .filter(|(_, one, _, other)| gets_in(one, other) == Some(false))
            .map(|(.., to, _)| to.to_string())
            .collect();
        if closed.is_empty() {
            return None;
        }
        let is_empty = answers
            .passwords
            .get(&Parameter::MasterAuth)
            .is_none_or(|password| password.expose_secret().is_empty());
        let has = if is_empty { "has no masterauth" } else { "has another masterauth" };
        let with = if is_empty { "where a password is wanted" } else { "where it is refused" };
        Some(Finding::error(
            Code::PasswordMismatch,
            addr,
            format!(
                "{addr} {has} and cannot log in at {}, {with}: it cannot follow there, and is lost as a replica after a \
                 failover",
                listed(&closed)
            ),
            "set requirepass (or the user of masteruser) and masterauth to the same password on every server of the group, \
             with CONFIG SET and CONFIG REWRITE: each may become a replica of another",
        ))
    })
}

/// The instances of which it is not known whether the others could log in there.
pub(super) fn undecided<'a>(case: &Case<'a>) -> BTreeSet<&'a Addr> {
    pairs(case)
        .into_iter()
        .filter(|(_, from, _, to)| gets_in(from, to).is_none())
        .filter(|(_, from, ..)| from.passwords.contains_key(&Parameter::MasterAuth))
        .map(|(.., to, _)| to)
        .collect()
}
