//! A value as a source wrote it, and how it is understood.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use failover_core::addr::Addr;
use failover_core::record::{HookEvent, Rule};
use secrecy::SecretString;

use super::draft::Password;
use super::{ConfigError, Origin, SavedState};

/// A value as its source wrote it. It may be a password, so it cannot be printed.
pub(crate) enum Value {
    /// From a flag or the environment, which know no types.
    Word(String),
    /// From the file, in quotes.
    Text(String),
    Integer(i64),
    Float(f64),
    Switch(bool),
    List(Vec<(Self, Origin)>),
    /// What no setting takes, in words.
    Other(&'static str),
}

/// Why a value is refused, and where if that is more exact than the place of the whole value.
pub(crate) struct Fault {
    message: String,
    origin: Option<Origin>,
}

impl Fault {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), origin: None }
    }

    /// As an error of the setting with that key, at its own place, else at that of the whole
    /// value. A place in a file does not name the setting, so the sentence does.
    pub(crate) fn of(self, key: &str, origin: &Origin) -> ConfigError {
        let origin = self.origin.as_ref().unwrap_or(origin);
        match origin {
            Origin::File { .. } => origin.error(format!("{key}: {}", self.message)),
            Origin::Environment { .. } | Origin::Flag { .. } => origin.error(self.message),
        }
    }
}

impl Value {
    pub(crate) fn is_empty_text(&self) -> bool {
        match self {
            Self::Word(text) | Self::Text(text) => text.is_empty(),
            Self::Integer(_)
            | Self::Float(_)
            | Self::Switch(_)
            | Self::List(_)
            | Self::Other(_) => false,
        }
    }

    pub(crate) fn text(&self) -> Result<&str, Fault> {
        match self {
            Self::Word(text) | Self::Text(text) => Ok(text),
            Self::Integer(_)
            | Self::Float(_)
            | Self::Switch(_)
            | Self::List(_)
            | Self::Other(_) => Err(self.expected("a text in quotes")),
        }
    }

    /// A text; an empty one takes an earlier source's away.
    pub(super) fn optional(&self) -> Result<Option<String>, Fault> {
        self.text().map(|text| (!text.is_empty()).then(|| text.to_owned()))
    }

    pub(crate) fn addr(&self) -> Result<Addr, Fault> {
        parse_address(self.text()?)
    }

    pub(crate) fn addrs(&self) -> Result<Vec<Addr>, Fault> {
        self.list(parse_address)
    }

    pub(super) fn texts(&self) -> Result<Vec<String>, Fault> {
        self.list(|text| Ok(text.to_owned()))
    }

    /// An empty one takes an earlier source's away.
    pub(super) fn password(&self) -> Result<Password, Fault> {
        self.text().map(|text| match text {
            "" => Password::None,
            text => Password::Text(SecretString::from(text)),
        })
    }

    pub(super) fn password_file(&self) -> Result<Password, Fault> {
        self.text().map(|text| match text {
            "" => Password::None,
            path => Password::File(path.into()),
        })
    }

    pub(super) fn switch(&self) -> Result<bool, Fault> {
        match self {
            Self::Switch(on) => Ok(*on),
            Self::Word(text) => match text.as_str() {
                "true" => Ok(true),
                "false" => Ok(false),
                _ => Err(Fault::new(format!("\"{text}\" is neither true nor false"))),
            },
            Self::Text(_) | Self::Integer(_) | Self::Float(_) | Self::List(_) | Self::Other(_) => {
                Err(self.expected("true or false, without quotes"))
            }
        }
    }

    /// A rule on the promotion of an instance.
    pub(crate) fn rule(&self) -> Result<Rule, Fault> {
        let rules = [Rule::Never, Rule::Prefer, Rule::PreferNot];
        self.choice(&rules.map(|rule| (rule.name(), rule)))
    }

    /// A priority as servers have it.
    pub(crate) fn priority(&self) -> Result<u32, Fault> {
        let number = self.whole()?;
        u32::try_from(number).map_err(|_| Fault::new(format!("{number} is too large")))
    }

    /// An empty one is none.
    pub(super) fn path(&self) -> Result<Option<PathBuf>, Fault> {
        self.text().map(|text| (!text.is_empty()).then(|| text.into()))
    }

    /// Events of hooks, by their names.
    pub(super) fn events(&self) -> Result<BTreeSet<HookEvent>, Fault> {
        let event = |name: &str| {
            HookEvent::by_name(name).ok_or_else(|| {
                let names = HookEvent::ALL.map(HookEvent::name).join(", ");
                Fault::new(format!("there is no event \"{name}\"; there are {names}"))
            })
        };
        self.list(event).map(|events| events.into_iter().collect())
    }

    /// An array of texts, or one text with commas.
    pub(super) fn list<T>(&self, one: impl Fn(&str) -> Result<T, Fault>) -> Result<Vec<T>, Fault> {
        match self {
            Self::Word(text) | Self::Text(text) => {
                text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(one).collect()
            }
            Self::List(items) => items
                .iter()
                .map(|(item, origin)| {
                    item.text()
                        .and_then(|text| one(text.trim()))
                        .map_err(|fault| Fault { origin: Some(origin.clone()), ..fault })
                })
                .collect(),
            Self::Integer(_) | Self::Float(_) | Self::Switch(_) | Self::Other(_) => {
                Err(self.expected("an array of texts"))
            }
        }
    }

    pub(super) fn saved_state(&self) -> Result<SavedState, Fault> {
        self.choice(&[("existing", SavedState::Existing), ("new", SavedState::New)])
    }

    pub(super) fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Result<T, Fault> {
        let text = self.text()?;
        let chosen = choices.iter().find(|(name, _)| *name == text);
        chosen.map(|(_, choice)| *choice).ok_or_else(|| {
            let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
            let (last, others) = names.split_last().expect("no setting is without choices");
            Fault::new(format!("\"{text}\" is unknown: it must be {} or {last}", others.join(", ")))
        })
    }

    pub(super) fn seconds(&self) -> Result<Duration, Fault> {
        self.duration(1.0)
    }

    pub(super) fn millis(&self) -> Result<Duration, Fault> {
        self.duration(1000.0)
    }

    fn duration(&self, units_per_second: f64) -> Result<Duration, Fault> {
        let number = self.number()?;
        Duration::try_from_secs_f64(number / units_per_second)
            .map_err(|_| Fault::new(format!("{number} is no time: it must be at least 0")))
    }

    fn number(&self) -> Result<f64, Fault> {
        match self {
            Self::Word(text) => {
                text.parse().map_err(|_| Fault::new(format!("\"{text}\" is not a number")))
            }
            // Beyond 2^53 it is rounded, which no setting comes near.
            Self::Integer(number) => Ok(*number as f64),
            Self::Float(number) => Ok(*number),
            Self::Text(_) | Self::Switch(_) | Self::List(_) | Self::Other(_) => {
                Err(self.expected("a number without quotes"))
            }
        }
    }

    pub(super) fn whole(&self) -> Result<u64, Fault> {
        let refused = |number: &dyn std::fmt::Display| {
            Fault::new(format!("\"{number}\" is not a whole number of at least 0"))
        };
        match self {
            Self::Word(text) => text.parse().map_err(|_| refused(text)),
            Self::Integer(number) => u64::try_from(*number).map_err(|_| refused(number)),
            Self::Float(number) => Err(refused(number)),
            Self::Text(_) | Self::Switch(_) | Self::List(_) | Self::Other(_) => {
                Err(self.expected("a whole number without quotes"))
            }
        }
    }

    pub(super) fn count(&self) -> Result<usize, Fault> {
        let number = self.whole()?;
        usize::try_from(number).map_err(|_| Fault::new(format!("{number} is too large")))
    }

    /// Says what a value is without repeating it.
    fn expected(&self, what: &str) -> Fault {
        let is = match self {
            Self::Word(_) | Self::Text(_) => "a text",
            Self::Integer(_) | Self::Float(_) => "a number",
            Self::Switch(_) => "true or false",
            Self::List(_) => "an array",
            Self::Other(is) => is,
        };
        Fault::new(format!("this is {is}, but must be {what}"))
    }
}

pub(super) fn store<T>(place: &mut T, value: Result<T, Fault>) -> Result<(), Fault> {
    *place = value?;
    Ok(())
}

/// Refuses a URL with a login before it is repeated in a message.
pub(super) fn parse_address<T: FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, Fault> {
    if text.contains('@') {
        return Err(Fault::new(
            "an address has no login in it: write host:port, and the login as redis_user and \
             redis_password",
        ));
    }
    text.parse().map_err(|error| Fault::new(format!("{error}")))
}
