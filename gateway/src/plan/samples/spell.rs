//! A sample as it is typed behind `vestibule explain`.

use std::fmt;

use serde::Serialize;

use super::{Sample, Tables};

/// A request in words; its text is what `vestibule explain` takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Spelled {
    /// The method.
    pub method: String,
    /// `http://host/path?query`.
    pub url: String,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// The listener's name, where the URL does not tell it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener: Option<String>,
}

impl Spelled {
    pub(in crate::plan) fn of(sample: &Sample, tables: &Tables) -> Self {
        let entry = tables.entries.get(sample.entry);
        let scheme = entry.map_or("http", |entry| entry.scheme);
        let query = sample.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
        let headers = sample
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
        Self {
            method: sample.method.to_string(),
            url: format!("{scheme}://{}{}{query}", sample.host, sample.path),
            headers: headers.collect(),
            listener: entry.filter(|entry| entry.is_one_of_many).map(|entry| entry.name.clone()),
        }
    }
}

impl fmt::Display for Spelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", quoted(&self.method), quoted(&self.url))?;
        for (name, value) in &self.headers {
            write!(f, " -H {}", quoted(&format!("{name}: {value}")))?;
        }
        match &self.listener {
            Some(listener) => write!(f, " --listener {}", quoted(listener)),
            None => Ok(()),
        }
    }
}

/// As a shell takes it for one word.
fn quoted(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:%@+,=".contains(&byte);
    match !text.is_empty() && text.bytes().all(is_plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}
