//! Takes a TOML file apart into values with their places.
//!
//! The table is walked by hand rather than deserialized into a struct: the settings are named in
//! one place for all sources, every value keeps its position for later checks, and no message can
//! repeat a value that may be a password.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use failover_core::addr::Addr;
use failover_core::policy::InstancePolicy;
use secrecy::{ExposeSecret, SecretString};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::draft::{GivenFile, GivenGroup, GivenWebhook, Password};
use super::value::Fault;
use super::{ConfigError, Given, Origin, Setting, Value, WebhookConfig};

/// Far above what the most groups need: a bound for what is read.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Reads a config file.
///
/// # Errors
/// When it cannot be read, is not TOML, or has a key that is no setting, with its position.
pub(crate) fn read(path: &Path) -> Result<GivenFile, ConfigError> {
    let unreadable = |error| ConfigError::Unreadable { path: path.to_owned(), error };
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text))
        .map_err(unreadable)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(unreadable(io::Error::other("it is longer than 64 MiB")));
    }
    parse(path, &text)
}

/// Takes the text of a config file apart; `path` is for messages only.
pub(crate) fn parse(path: &Path, text: &str) -> Result<GivenFile, ConfigError> {
    let reader = Reader {
        path: path.into(),
        text,
        line_starts: std::iter::once(0)
            .chain(text.match_indices('\n').map(|(newline, _)| newline + 1))
            .collect(),
    };
    // Only the bare message of the parser: its whole text shows the line, and a password may be
    // in it.
    let table = DeTable::parse(text).map_err(|error| {
        let byte = error.span().map_or(0, |span| span.start);
        reader.origin(byte).error(error.message())
    })?;
    reader.document(table.into_inner())
}

struct Reader<'a> {
    path: Arc<Path>,
    text: &'a str,
    line_starts: Vec<usize>,
}

/// A key, its place, its value and that one's place.
struct Entry<'a> {
    key: String,
    key_at: Origin,
    value: DeValue<'a>,
    value_at: Origin,
}

impl<'a> Reader<'a> {
    fn origin(&self, byte: usize) -> Origin {
        let line = self.line_starts.partition_point(|start| *start <= byte);
        let before = self.text.get(self.line_starts[line - 1]..byte);
        Origin::File {
            path: Arc::clone(&self.path),
            line,
            column: before.unwrap_or_default().chars().count() + 1,
        }
    }

    /// In the order of the file, so that of several mistakes the first is reported.
    fn entries(&self, table: DeTable<'a>) -> Vec<Entry<'a>> {
        let mut entries: Vec<_> = table.into_iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        entries
            .into_iter()
            .map(|(key, value)| Entry {
                key_at: self.origin(key.span().start),
                value_at: self.origin(value.span().start),
                key: key.into_inner().into_owned(),
                value: value.into_inner(),
            })
            .collect()
    }

    fn document(&self, table: DeTable<'a>) -> Result<GivenFile, ConfigError> {
        let mut file = GivenFile { given: Vec::new(), groups: Vec::new(), webhooks: Vec::new() };
        for entry in self.entries(table) {
            let key = &entry.key;
            if key == "group" {
                let DeValue::Array(tables) = entry.value else {
                    return Err(entry.key_at.error("a group is written [[group]]"));
                };
                for table in tables {
                    file.groups.push(self.group(table)?);
                }
            } else if key == "webhook" {
                let DeValue::Array(tables) = entry.value else {
                    return Err(entry.key_at.error("a webhook is written [[webhook]]"));
                };
                for table in tables {
                    file.webhooks.push(self.webhook(table)?);
                }
            } else if Setting::is_table(key) {
                let DeValue::Table(table) = entry.value else {
                    let message = format!("\"{key}\" is a table: write [{key}]");
                    return Err(entry.key_at.error(message));
                };
                for inner in self.entries(table) {
                    file.given.push(self.given(key, inner)?);
                }
            } else {
                file.given.push(self.given("", entry)?);
            }
        }
        Ok(file)
    }

    fn given(&self, table: &str, entry: Entry<'a>) -> Result<Given, ConfigError> {
        let Some(setting) = Setting::in_file(table, &entry.key) else {
            return Err(unknown(table, &entry));
        };
        Ok(Given { setting, value: self.value(entry.value), origin: entry.value_at })
    }

    fn group(&self, table: Spanned<DeValue<'a>>) -> Result<GivenGroup, ConfigError> {
        let origin = self.origin(table.span().start);
        let DeValue::Table(table) = table.into_inner() else {
            return Err(origin.error("a group is written [[group]]"));
        };
        let mut origins = BTreeMap::new();
        let (mut name, mut master, mut replicas, mut given) = (None, None, Vec::new(), Vec::new());
        let mut instances = BTreeMap::new();
        for entry in self.entries(table) {
            let at = entry.value_at.clone();
            let key = entry.key.clone();
            let fail = |fault: Fault| fault.of(&key, &at);
            match key.as_str() {
                "name" => {
                    let value = self.value(entry.value);
                    name = Some(value.text().map_err(fail)?.to_owned());
                    origins.insert("name", entry.value_at);
                }
                "master" => {
                    master = Some(self.value(entry.value).addr().map_err(fail)?);
                    origins.insert("master", entry.value_at);
                }
                "replicas" => {
                    replicas = self.value(entry.value).addrs().map_err(fail)?;
                    origins.insert("replicas", entry.value_at);
                }
                "instance" => {
                    let DeValue::Array(tables) = entry.value else {
                        return Err(entry
                            .key_at
                            .error("an instance is written [[group.instance]]"));
                    };
                    for table in tables {
                        let origin = self.origin(table.span().start);
                        let (addr, rules) = self.instance(table)?;
                        if instances.insert(addr.clone(), rules).is_some() {
                            return Err(origin.error(format!("{addr} is given twice")));
                        }
                    }
                }
                key => match Setting::of_key(key).filter(|setting| setting.is_per_group()) {
                    Some(setting) => given.push(Given {
                        setting,
                        value: self.value(entry.value),
                        origin: entry.value_at,
                    }),
                    None => return Err(unknown("[group]", &entry)),
                },
            }
        }
        let Some(master) = master else {
            return Err(origin.error("this group has no master"));
        };
        Ok(GivenGroup { origin, origins, name, master, replicas, given, instances })
    }

    /// What is set of one instance.
    fn instance(&self, table: Spanned<DeValue<'a>>) -> Result<(Addr, InstancePolicy), ConfigError> {
        let origin = self.origin(table.span().start);
        let DeValue::Table(table) = table.into_inner() else {
            return Err(origin.error("an instance is written [[group.instance]]"));
        };
        let (mut addr, mut set) = (None, InstancePolicy::default());
        for entry in self.entries(table) {
            let (at, key) = (entry.value_at, entry.key);
            let value = self.value(entry.value);
            let fail = |fault: Fault| fault.of(&key, &at);
            match key.as_str() {
                "addr" => addr = Some(value.addr().map_err(fail)?),
                "priority" => set.priority = Some(value.priority().map_err(fail)?),
                "location" => set.location = Some(value.text().map_err(fail)?.to_owned()),
                "rule" => set.rule = Some(value.rule().map_err(fail)?),
                unknown => {
                    let what = format!("unknown key \"{unknown}\" in [[group.instance]]");
                    return Err(entry.key_at.error(what));
                }
            }
        }
        let addr = addr.ok_or_else(|| origin.error("this instance has no addr"))?;
        Ok((addr, set))
    }

    fn webhook(&self, table: Spanned<DeValue<'a>>) -> Result<GivenWebhook, ConfigError> {
        let origin = self.origin(table.span().start);
        let DeValue::Table(table) = table.into_inner() else {
            return Err(origin.error("a webhook is written [[webhook]]"));
        };
        let (mut webhook, mut secret) = (WebhookConfig::new("", ""), Password::None);
        for entry in self.entries(table) {
            let (at, key) = (entry.value_at, entry.key);
            let value = self.value(entry.value);
            let fail = |fault: Fault| fault.of(&key, &at);
            match key.as_str() {
                "name" => value.text().map_err(fail)?.clone_into(&mut webhook.name),
                "url" => webhook.url = SecretString::from(value.text().map_err(fail)?),
                "events" => webhook.events = value.events().map_err(fail)?,
                "groups" => {
                    webhook.groups = value.texts().map_err(fail)?.into_iter().collect();
                }
                "timeout_ms" => webhook.timeout = value.millis().map_err(fail)?,
                "secret" | "secret_file" if !matches!(secret, Password::None) => {
                    return Err(at.error("secret and secret_file are both given"));
                }
                "secret" => secret = value.password().map_err(fail)?,
                "secret_file" => secret = value.password_file().map_err(fail)?,
                unknown => {
                    let what = format!("unknown key \"{unknown}\" in [[webhook]]");
                    return Err(entry.key_at.error(what));
                }
            }
        }
        if webhook.name.is_empty() {
            // The rest of the address may be a password.
            let url: Option<hyper::Uri> = webhook.url.expose_secret().parse().ok();
            webhook.name = url.and_then(|url| url.host().map(str::to_owned)).unwrap_or_default();
        }
        Ok(GivenWebhook { origin, webhook, secret })
    }

    fn value(&self, value: DeValue<'a>) -> Value {
        match value {
            DeValue::String(text) => Value::Text(text.into_owned()),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_or(Value::Other("a number that is too large"), Value::Integer),
            DeValue::Float(number) => number
                .as_str()
                .parse()
                .map_or(Value::Other("a number that cannot be read"), Value::Float),
            DeValue::Array(items) => Value::List(
                items
                    .into_iter()
                    .map(|item| {
                        let origin = self.origin(item.span().start);
                        (self.value(item.into_inner()), origin)
                    })
                    .collect(),
            ),
            DeValue::Boolean(on) => Value::Switch(on),
            DeValue::Datetime(_) => Value::Other("a date"),
            DeValue::Table(_) => Value::Other("a table"),
        }
    }
}

/// Names the key, and how it is written if it is a setting after all.
fn unknown(table: &str, entry: &Entry<'_>) -> ConfigError {
    let key = &entry.key;
    let hint = match Setting::of_key(key) {
        Some(_) if table == "[group]" => {
            "; it is set for the whole node, above the groups".to_owned()
        }
        Some(setting) if !setting.table.is_empty() => {
            format!("; write it as {} in [{}]", setting.name, setting.table)
        }
        Some(_) => "; write it above all tables".to_owned(),
        None => String::new(),
    };
    let whole = match table {
        "" => format!("unknown key \"{key}\""),
        "[group]" => format!("unknown key \"{key}\" in [[group]]"),
        table => format!("unknown key \"{key}\" in [{table}]"),
    };
    entry.key_at.error(whole + &hint)
}
