//! A plan as a person reads it. Colours are always in it: who prints it takes them out where they do not belong.

use std::fmt::{self, Write as _};

use anstyle::{AnsiColor, Style};
use serde_json::Value;

use super::{CertificateChange, Change, KeyChange, Piece, Plan, Requests, Side};
use crate::snapshot::certificates::{Certificate, Usage};

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const GREEN: Style = AnsiColor::Green.on_default();
const YELLOW: Style = AnsiColor::Yellow.on_default();
const RED: Style = AnsiColor::Red.on_default();

/// The whole text, ended by a line end.
pub fn render(plan: &Plan) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = whole(&mut text, plan);
    text
}

fn whole(text: &mut String, plan: &Plan) -> fmt::Result {
    writeln!(text, "{BOLD}{} -> {}{BOLD:#}", side(&plan.old), side(&plan.new))?;
    if !plan.refused.is_empty() {
        writeln!(text, "\n{RED}refused{RED:#}: this cannot change while the gateway runs")?;
        for refused in &plan.refused {
            writeln!(text, "  {} ({})", change(&refused.key), refused.why)?;
        }
    }
    pieces(text, "listeners", &plan.listeners)?;
    pieces(text, "upstreams", &plan.upstreams)?;
    pieces(text, "routes", &plan.routes)?;
    if !plan.settings.is_empty() {
        writeln!(text, "\n{BOLD}other settings{BOLD:#}")?;
        for key in &plan.settings {
            writeln!(text, "  {} {}", mark(Change::Changed), change(key))?;
        }
    }
    if !plan.precedence.is_empty() {
        writeln!(text, "\n{BOLD}precedence{BOLD:#}")?;
        for it in plan.precedence.iter().take(MOST_LINES) {
            writeln!(text, "  {} now comes before {}, as for {}", it.route, it.before, it.request)?;
        }
        more(text, plan.precedence.len().saturating_sub(MOST_LINES))?;
    }
    requests(text, &plan.requests)?;
    if !plan.certificates.is_empty() {
        writeln!(text, "\n{BOLD}certificates{BOLD:#}")?;
        for change in &plan.certificates {
            certificate(text, change)?;
        }
    }
    if !plan.notes.is_empty() {
        writeln!(text)?;
    }
    for note in &plan.notes {
        writeln!(text, "note: {note}")?;
    }
    writeln!(text, "\n{}", summary(plan))
}

/// So many lines of a kind.
const MOST_LINES: usize = 20;

fn side(side: &Side) -> String {
    let files = match side.files.as_slice() {
        [] => "nothing".to_owned(),
        [file] => file.display().to_string(),
        [first, rest @ ..] => format!("{} and {} more", first.display(), rest.len()),
    };
    format!("{files} ({})", side.hash)
}

fn mark(change: Change) -> String {
    match change {
        Change::Added => format!("{GREEN}+{GREEN:#}"),
        Change::Removed => format!("{RED}-{RED:#}"),
        Change::Changed | Change::Renamed => format!("{YELLOW}~{YELLOW:#}"),
    }
}

fn pieces(text: &mut String, title: &str, pieces: &[Piece]) -> fmt::Result {
    if pieces.is_empty() {
        return Ok(());
    }
    writeln!(text, "\n{BOLD}{title}{BOLD:#}")?;
    for piece in pieces {
        let Piece { name, old_name, change: kind, what, keys, effects } = piece;
        let renamed = old_name.as_ref().map(|old| format!(" (was {old})")).unwrap_or_default();
        writeln!(text, "  {} {BOLD}{name}{BOLD:#}{renamed}  {what}", mark(*kind))?;
        for key in keys {
            writeln!(text, "      {}", change(key))?;
        }
        for effect in effects {
            writeln!(text, "      {DIM}{effect}{DIM:#}")?;
        }
    }
    Ok(())
}

fn change(KeyChange { key, old, new }: &KeyChange) -> String {
    let key = if key.is_empty() { "definition" } else { key };
    match (old, new) {
        (Some(old), Some(new)) => {
            let (old, new) = (flow(old), flow(new));
            // Where they read the same, the difference is in what may not be told.
            let unseen = if old == new { " (another one)" } else { "" };
            format!("{key}: {RED}{old}{RED:#} -> {GREEN}{new}{GREEN:#}{unseen}")
        }
        (None, Some(new)) => format!("{key}: {GREEN}added{GREEN:#} {}", flow(new)),
        (Some(old), None) => format!("{key}: {RED}removed{RED:#} {}", flow(old)),
        (None, None) => key.to_owned(),
    }
}

/// A value in YAML's flow style, of a long one the beginning.
fn flow(value: &Value) -> String {
    const MOST: usize = 120;
    fn write(value: &Value) -> String {
        match value {
            Value::Null => "nothing".to_owned(),
            Value::String(text) if text.is_empty() => "\"\"".to_owned(),
            Value::String(text) => text.escape_debug().to_string().replace("\\\"", "\"").replace("\\'", "'"),
            Value::Array(items) => format!("[{}]", items.iter().map(write).collect::<Vec<_>>().join(", ")),
            Value::Object(map) if map.is_empty() => "{}".to_owned(),
            Value::Object(map) => {
                let entries: Vec<_> =
                    map.iter().map(|(key, value)| format!("{key}: {}", write(value))).collect();
                format!("{{ {} }}", entries.join(", "))
            }
            other => other.to_string(),
        }
    }
    let text = write(value);
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn requests(text: &mut String, requests: &Requests) -> fmt::Result {
    if requests.moved.is_empty() {
        return Ok(());
    }
    writeln!(text, "\n{BOLD}requests that would go elsewhere{BOLD:#}, of {} tried", requests.tried)?;
    for it in &requests.moved {
        let alike = match it.alike {
            0 => String::new(),
            more => format!(" {DIM}(and {more} alike){DIM:#}"),
        };
        writeln!(text, "  {}{alike}", it.request)?;
        let told = |outcome: &super::samples::Outcome| match &outcome.route {
            Some(route) => format!("{route} ({})", outcome.what),
            None => format!("no route ({})", outcome.what),
        };
        writeln!(text, "      {RED}{}{RED:#} -> {GREEN}{}{GREEN:#}", told(&it.old), told(&it.new))?;
    }
    more(text, requests.more)
}

fn more(text: &mut String, more: usize) -> fmt::Result {
    if more > 0 { writeln!(text, "  and {more} more") } else { Ok(()) }
}

fn certificate(text: &mut String, it: &CertificateChange) -> fmt::Result {
    let usage = match it.usage {
        Usage::Listener => "certificate",
        Usage::ClientCertificate => "client certificate",
        Usage::Ca => "CA",
    };
    let subject = it.new.as_ref().or(it.old.as_ref()).map(|it| it.subject.as_str()).unwrap_or_default();
    writeln!(text, "  {} {BOLD}{}{BOLD:#}  {usage} {subject}", mark(it.change), it.owner)?;
    let told = |it: &Certificate| format!("serial {}, valid to {}", it.serial, it.not_after);
    if let Some(old) = &it.old {
        writeln!(text, "      {RED}old{RED:#} {}", told(old))?;
    }
    if let Some(new) = &it.new {
        writeln!(text, "      {GREEN}new{GREEN:#} {}", told(new))?;
    }
    for warning in &it.warnings {
        writeln!(text, "      {YELLOW}warning{YELLOW:#}: {warning}")?;
    }
    Ok(())
}

fn summary(plan: &Plan) -> String {
    if !plan.refused.is_empty() {
        return format!("{RED}this reload would be refused{RED:#}: restart the gateway for it");
    }
    if !plan.changes {
        return format!("{GREEN}nothing changes{GREEN:#}");
    }
    let all = [&plan.listeners, &plan.upstreams, &plan.routes];
    let certificates = plan.certificates.iter().map(|it| it.change);
    let kinds: Vec<Change> =
        all.iter().flat_map(|list| list.iter().map(|it| it.change)).chain(certificates).collect();
    let count = |kind: &[Change]| kinds.iter().filter(|it| kind.contains(it)).count();
    let changed = count(&[Change::Changed, Change::Renamed]) + plan.settings.len();
    format!("{} added, {changed} changed, {} removed", count(&[Change::Added]), count(&[Change::Removed]))
}
