//! Reads the configuration: the file, `conf.d/*.toml` beside it in the order of their names, then the environment.
//!
//! Each file is read on its own first, so that an error can say which file, line and key it is. Then the tables are laid
//! over each other: a key of a later file replaces the earlier one's; listeners and sources add up.

use std::fmt;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::{Config, check, locate};

/// What is wrong with the configuration, and where. Shown as `file:line: key: what`.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// `file:line`, `file`, or the name of an environment variable.
    pub place: String,
    /// The key, dotted; empty if none is concerned.
    pub key: String,
    /// What is wrong and what to do.
    pub what: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key.as_str() {
            "" => write!(f, "{}: {}", self.place, self.what),
            key => write!(f, "{}: {key}: {}", self.place, self.what),
        }
    }
}

impl std::error::Error for ConfigError {}

/// A file that was read, to say later where a key stands.
#[derive(Clone, Debug)]
pub struct File {
    /// Its path, as it was given.
    pub path: PathBuf,
    /// What is in it.
    pub text: String,
}

/// Reads the file, those in `conf.d` beside it, and the variables; checks what concerns more than one key.
pub fn load(path: &Path, variables: impl Iterator<Item = (String, String)>) -> Result<Config, ConfigError> {
    let mut files = vec![read(path)?];
    for path in fragments(path)? {
        files.push(read(&path)?);
    }
    let mut merged = Table::new();
    for file in &files {
        lay_over(&mut merged, parse(file)?);
    }
    let config = with_variables(merged, variables)?;
    check::check(&config, &files)?;
    Ok(config)
}

/// The configuration without a file: the defaults for loopback, and the variables.
pub fn without_file(variables: impl Iterator<Item = (String, String)>) -> Result<Config, ConfigError> {
    let defaults = Table::try_from(Config::without_file()).map_err(|error| ConfigError {
        place: "defaults".into(),
        key: String::new(),
        what: error.to_string(),
    })?;
    let config = with_variables(defaults, variables)?;
    check::check(&config, &[])?;
    Ok(config)
}

fn read(path: &Path) -> Result<File, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|error| ConfigError {
        place: path.display().to_string(),
        key: String::new(),
        what: format!("cannot be read: {error}"),
    })?;
    Ok(File { path: path.to_owned(), text })
}

/// The files of `conf.d` beside the file, in the order of their names.
fn fragments(path: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let folder = path.parent().unwrap_or(Path::new("")).join("conf.d");
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let unreadable = |error: std::io::Error| ConfigError {
        place: folder.display().to_string(),
        key: String::new(),
        what: format!("cannot be read: {error}"),
    };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Reads one file for itself, with the whole schema, so that an error has its place.
fn parse(file: &File) -> Result<Table, ConfigError> {
    let located = |error: toml::de::Error| {
        let byte = error.span().map(|span| span.start);
        let line = byte.map_or(String::new(), |byte| format!(":{}", locate::line(&file.text, byte)));
        let mut key = byte.map_or(String::new(), |byte| locate::show(&locate::steps_at(&file.text, byte)));
        if key.is_empty() {
            // not even the syntax is right: name what stands there, if that is a key
            let written = error.span().and_then(|span| file.text.get(span)).unwrap_or_default();
            let bare = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-' || b == b'.';
            key = if written.bytes().all(bare) { written.to_owned() } else { String::new() };
        }
        ConfigError { place: format!("{}{line}", file.path.display()), key, what: in_words(error.message()) }
    };
    toml::from_str::<Config>(&file.text).map_err(located)?;
    toml::from_str::<Table>(&file.text).map_err(located)
}

/// The message in the words of who writes the file, not of who wrote the program.
fn in_words(message: &str) -> String {
    let mut message = message.replace('\n', ", ");
    if let Some((before, kind)) =
        message.split_once("expected struct ").filter(|(_, kind)| !kind.contains(' '))
    {
        message = format!("{before}expected the table [{}]", kind.to_lowercase());
    }
    for (rust, words) in [
        ("expected usize", "expected a whole number, not below 0"),
        ("expected u16", "expected a whole number from 0 to 65535"),
        ("expected a sequence", "expected a list"),
    ] {
        message = message.replace(rust, words);
    }
    message
}

/// Lays the upper table over the lower one.
fn lay_over(lower: &mut Table, upper: Table) {
    for (key, value) in upper {
        match (lower.get_mut(&key), value) {
            (Some(Value::Table(lower)), Value::Table(upper)) => lay_over(lower, upper),
            (Some(Value::Array(lower)), Value::Array(upper)) if key == "listener" || key == "source" => {
                lower.extend(upper);
            }
            (_, value) => {
                lower.insert(key, value);
            }
        }
    }
}

const PREFIX: &str = "FIREHOSE__";

/// Lays the variables over the table (`FIREHOSE__LOG__DURABILITY` is `log.durability`) and reads the whole.
fn with_variables(
    mut table: Table,
    variables: impl Iterator<Item = (String, String)>,
) -> Result<Config, ConfigError> {
    let mut variables: Vec<_> = variables.filter(|(name, _)| name.starts_with(PREFIX)).collect();
    variables.sort();
    for (name, text) in variables {
        lay_over(&mut table, overriding(&name, &text)?);
    }
    table.try_into().map_err(|error: toml::de::Error| ConfigError {
        place: "configuration".into(),
        key: String::new(),
        what: error.message().to_owned(),
    })
}

/// The table that one variable stands for.
fn overriding(name: &str, text: &str) -> Result<Table, ConfigError> {
    let keys: Vec<String> = name[PREFIX.len()..].split("__").map(str::to_ascii_lowercase).collect();
    let fail = |what: String| ConfigError { place: name.to_owned(), key: keys.join("."), what };
    let [table, key] = keys.as_slice() else {
        return Err(fail(
            "an environment variable overrides one key of one table, as in FIREHOSE__LOG__DURABILITY".into(),
        ));
    };
    let nested = |value: Value| {
        let inner = Table::from_iter([(key.clone(), value)]);
        Table::from_iter([(table.clone(), Value::Table(inner))])
    };
    let plain = nested(Value::String(text.to_owned()));
    let Some(value) = scalar(text) else {
        return plain
            .clone()
            .try_into::<Config>()
            .map(|_| plain)
            .map_err(|error| fail(in_words(error.message())));
    };
    let read = nested(value);
    match read.clone().try_into::<Config>() {
        Ok(_) => Ok(read),
        // a number where a text is wanted: a folder may well be called 7
        Err(error) => {
            plain.clone().try_into::<Config>().map(|_| plain).map_err(|_| fail(in_words(error.message())))
        }
    }
}

/// The text as a number or a truth value of TOML; none: it is a plain string.
fn scalar(text: &str) -> Option<Value> {
    let mut table: Table = toml::from_str(&format!("value = {text}")).ok()?;
    match table.remove("value") {
        Some(value @ (Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::String(_))) => {
            Some(value)
        }
        _ => None,
    }
}
