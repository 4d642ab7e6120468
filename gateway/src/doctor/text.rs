//! The report as a person reads it. Colours are always in it: who prints it takes them out where they do not belong.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};

use super::chain::Certificate;
use super::report::{Finding, Fix, Report, Trial, Verdict};

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const GREEN: Style = AnsiColor::Green.on_default();
const YELLOW: Style = AnsiColor::Yellow.on_default();
const RED: Style = AnsiColor::Red.on_default();

/// Everything, the endpoints in the order of the file.
pub fn render(report: &Report) -> String {
    let mut text = String::new();
    for finding in &report.targets {
        // Writing to a String cannot fail.
        let _ = one(&mut text, finding);
    }
    let count = |verdict| report.targets.iter().filter(|finding| finding.verdict == verdict).count();
    let (good, warning, bad) = (count(Verdict::Good), count(Verdict::Warning), count(Verdict::Bad));
    let _ = writeln!(text, "{good} good, {warning} with a warning, {bad} bad");
    text
}

fn one(text: &mut String, finding: &Finding) -> std::fmt::Result {
    let way = match finding.routes.as_slice() {
        [] => format!("upstream `{}`", finding.upstream),
        [route] => format!("route `{route}`, upstream `{}`", finding.upstream),
        routes => format!("routes `{}`, upstream `{}`", routes.join("`, `"), finding.upstream),
    };
    let at = match &finding.address {
        Some(address) if *address != finding.endpoint => format!("{} ({address})", finding.endpoint),
        _ => finding.endpoint.clone(),
    };
    writeln!(text, "{BOLD}{way}, {at}{BOLD:#}")?;
    for step in &finding.steps {
        let ms = step.ms.map(|ms| format!(" {DIM}({ms} ms){DIM:#}")).unwrap_or_default();
        writeln!(text, "  {} {:<10}{}{ms}", mark(step.good), step.step, step.outcome)?;
    }
    let style = style(finding.verdict);
    match finding.code {
        Some(code) => {
            writeln!(text, "  {style}bad: {code}{style:#}: {}", finding.what)?;
            if !finding.detail.is_empty() {
                writeln!(text, "    {}", finding.detail)?;
            }
        }
        None => writeln!(text, "  {style}{}{style:#}: {}", word(finding.verdict), finding.what)?,
    }
    for note in &finding.notes {
        let style = self::style(note.verdict);
        let mark = if note.verdict == Verdict::Good { "note" } else { "warning" };
        writeln!(text, "  {style}{mark}{style:#}: {}", note.text)?;
    }
    chain(text, &finding.chain)?;
    if !finding.accepted_issuers.is_empty() {
        writeln!(text, "  it accepts client certificates of `{}`", finding.accepted_issuers.join("`, `"))?;
    }
    if !finding.trials.is_empty() {
        trials(text, &finding.trials)?;
    }
    if let Some(found) = &finding.fix {
        fix(text, found)?;
    }
    writeln!(text)
}

/// What came of each, those that came to the same on one line.
fn trials(text: &mut String, trials: &[Trial]) -> std::fmt::Result {
    writeln!(text, "  with one thing changed")?;
    let mut told: Vec<(bool, &str, Vec<&str>)> = Vec::new();
    for trial in trials {
        let outcome = if trial.good { "" } else { trial.outcome.as_str() };
        match told.iter_mut().find(|(good, known, _)| *good == trial.good && *known == outcome) {
            Some((.., tried)) => tried.push(&trial.tried),
            None => told.push((trial.good, outcome, vec![&trial.tried])),
        }
    }
    for (good, outcome, tried) in told {
        let outcome = if good { String::new() } else { format!("{outcome}: ") };
        writeln!(text, "    {} {outcome}{}", mark(good), tried.join("; "))?;
    }
    Ok(())
}

fn fix(text: &mut String, fix: &Fix) -> std::fmt::Result {
    let tried = match (fix.tried, fix.changes.is_empty()) {
        (true, _) => "tried, and a request got through",
        (false, true) => "not tried",
        (false, false) => "not tried: fill the names in",
    };
    writeln!(text, "  {BOLD}fix{BOLD:#} ({tried})")?;
    for words in &fix.words {
        writeln!(text, "    {words}")?;
    }
    for save in &fix.save {
        writeln!(text, "    save as {}, SHA-256 {}", save.file.display(), save.sha256)?;
        for line in save.pem.lines() {
            writeln!(text, "      {line}")?;
        }
    }
    for change in &fix.changes {
        for line in change.diff.lines() {
            let style = match line.as_bytes().first() {
                Some(b'+') => GREEN,
                Some(b'-') => RED,
                _ => Style::new(),
            };
            writeln!(text, "    {style}{line}{style:#}")?;
        }
    }
    Ok(())
}

/// The trusted end first, each certificate below the one that signed it.
fn chain(text: &mut String, chain: &[Certificate]) -> std::fmt::Result {
    let Some(top) = chain.last() else { return Ok(()) };
    writeln!(text, "  certificates")?;
    let is_whole = top.trusted_by.is_some() || top.issuer == top.subject;
    if !is_whole {
        let missing = if top.issuer_is_missing {
            format!("{RED}neither sent nor trusted{RED:#}")
        } else {
            "not sent".to_owned()
        };
        writeln!(text, "    `{}`, {missing}", top.issuer)?;
    }
    for (depth, certificate) in (usize::from(!is_whole)..).zip(chain.iter().rev()) {
        let indent = " ".repeat(4 + 2 * depth);
        let trusted = match &certificate.trusted_by {
            Some(file) => format!(", {GREEN}trusted by {file}{GREEN:#}"),
            None => String::new(),
        };
        let sent = if certificate.sent { "" } else { ", not sent" };
        writeln!(text, "{indent}`{}`{sent}{trusted}", certificate.subject)?;
        if !certificate.names.is_empty() {
            writeln!(text, "{indent}  for `{}`", certificate.names.join("`, `"))?;
        }
        let left = certificate.days_left;
        let until = certificate.not_after.split('T').next().unwrap_or_default();
        let days = match left {
            ..0 => format!("{RED}until {until}, {} days ago{RED:#}", -left),
            0..14 => format!("{YELLOW}until {until}, {left} days left{YELLOW:#}"),
            _ => format!("until {until}, {left} days left"),
        };
        writeln!(text, "{indent}  {days}, pin {}", certificate.pin)?;
    }
    Ok(())
}

fn mark(good: bool) -> String {
    match good {
        true => format!("{GREEN}ok{GREEN:#} "),
        false => format!("{RED}bad{RED:#}"),
    }
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Good => "good",
        Verdict::Warning => "warning",
        Verdict::Bad => "bad",
    }
}

fn style(verdict: Verdict) -> Style {
    match verdict {
        Verdict::Good => GREEN,
        Verdict::Warning => YELLOW,
        Verdict::Bad => RED,
    }
}
