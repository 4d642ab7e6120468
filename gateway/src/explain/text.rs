//! An explanation as a person reads it.

use std::fmt::Write;

use super::{Answer, Change, Considered, Explanation, Forward, Line, Outcome, Standing, Tls, Verify};

/// Whether the text may hold colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colors {
    /// It goes to a terminal.
    On,
    /// It goes anywhere.
    Off,
}

/// What a piece of text is.
#[derive(Clone, Copy)]
pub(super) enum Style {
    Good,
    Bad,
    Name,
    Aside,
}

impl Colors {
    pub(super) fn paint(self, style: Style, text: &str) -> String {
        let code = match style {
            Style::Good => "32",
            Style::Bad => "31",
            Style::Name => "1",
            Style::Aside => "2",
        };
        match self {
            Self::On if !text.is_empty() => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            _ => text.to_owned(),
        }
    }
}

/// The whole text, ended by a line end.
pub fn render(explanation: &Explanation, colors: Colors) -> String {
    let mut page = Page { text: String::new(), colors };
    page.whole(explanation);
    page.text
}

struct Page {
    text: String,
    colors: Colors,
}

/// How far the keys of a block reach.
const KEYS: usize = 20;

impl Page {
    fn whole(&mut self, explanation: &Explanation) {
        let Explanation { request, listener, routes, plugins, outcome, .. } = explanation;
        self.line(&format!(
            "{} {} for {} at listener {}  {}",
            request.method, request.target, request.host, listener.name, listener.at
        ));
        self.line("");
        self.routes(routes);
        let left_out: Vec<_> = plugins.iter().filter(|plugin| !plugin.ran).collect();
        for plugin in &left_out {
            self.line(&format!(
                "plugin {}  {}: left out, since it waits for an answer from outside; what it would do is not shown",
                plugin.place.name, plugin.place.at
            ));
        }
        if !left_out.is_empty() {
            self.line("");
        }
        match outcome {
            Outcome::Refused(refusal) => {
                let status = self.colors.paint(Style::Bad, &refusal.status.to_string());
                self.line(&format!("refused with {status} ({}): {}", refusal.cause, refusal.why));
            }
            Outcome::Answered(answer) => self.answer(answer),
            Outcome::Forwarded { upstreams } => {
                let mut shown: Option<&[Line]> = None;
                for part in upstreams {
                    // The parts of a split mostly get the same.
                    let request = Some(part.request.as_slice()).filter(|lines| shown != Some(lines));
                    if shown.is_some() {
                        self.line("");
                    }
                    self.forward(part, request);
                    shown = Some(&part.request);
                }
            }
        }
    }

    fn routes(&mut self, routes: &[Considered]) {
        let width = routes.iter().map(|route| route.place.name.chars().count()).max().unwrap_or(0);
        let places = routes.iter().map(|route| route.place.at.chars().count()).max().unwrap_or(0);
        for Considered { place, result, why, .. } in routes {
            let (name, at) = (format!("{:width$}", place.name), format!("{:places$}", place.at));
            let (lead, name, why) = match result {
                Standing::Wins => (
                    self.colors.paint(Style::Good, "route     "),
                    self.colors.paint(Style::Name, &name),
                    why.clone(),
                ),
                Standing::Outranked => ("outranked ".into(), name, self.colors.paint(Style::Aside, why)),
                Standing::Fails => ("no match  ".into(), name, self.colors.paint(Style::Aside, why)),
            };
            self.line(&format!("{lead} {name}  {at}  {why}"));
        }
        if !routes.is_empty() {
            self.line("");
        }
    }

    fn answer(&mut self, answer: &Answer) {
        let status = self.colors.paint(Style::Name, &answer.status.to_string());
        self.line(&format!("answered with {status} by {}", answer.by));
        for (name, value) in &answer.headers {
            self.line(&format!("  {name}: {value}"));
        }
        self.line(&format!("  ({} bytes of body)", answer.body_bytes));
    }

    fn forward(&mut self, part: &Forward, request: Option<&[Line]>) {
        let share = match part.total_weight == part.weight {
            true => String::new(),
            false => format!("  {} of {} requests", part.weight, part.total_weight),
        };
        let name = self.colors.paint(Style::Name, &part.upstream.name);
        self.line(&format!("upstream {name}  {}{share}", part.upstream.at));
        match request {
            Some(lines) => self.diff(lines),
            None => self.line("  gets the same request"),
        }
        for (position, endpoint) in part.endpoints.iter().enumerate() {
            let weight = match part.endpoints.iter().all(|other| other.weight == endpoint.weight) {
                true => String::new(),
                false => format!(" (weight {})", endpoint.weight),
            };
            let asked = match (&part.tls, &endpoint.sni) {
                (None, _) => String::new(),
                (Some(_), Some(sni)) => format!(", SNI {sni}"),
                (Some(_), None) => ", no SNI".into(),
            };
            let verified = match endpoint.verified.is_empty() {
                true => String::new(),
                false => format!(", verified {}", endpoint.verified.join(" or ")),
            };
            self.key(
                if position == 0 { "endpoint" } else { "then" },
                &format!("{}{weight}: Host {}{asked}{verified}", endpoint.address, endpoint.host),
            );
        }
        self.key(
            "protocol",
            &format!("{}{}", part.protocol, if part.tls.is_some() { " over TLS" } else { ", plain" }),
        );
        if let Some(tls) = &part.tls {
            self.tls(tls);
        }
        let timeouts = &part.timeouts;
        let limit = |limit: &Option<String>| limit.clone().unwrap_or_else(|| "none".into());
        self.key(
            "timeouts",
            &format!(
                "request {}, attempt {}, idle {}, connect {}; kept idle for {}",
                limit(&timeouts.request),
                limit(&timeouts.attempt),
                limit(&timeouts.idle),
                limit(&timeouts.connect),
                timeouts.keepalive
            ),
        );
        self.retry(part);
    }

    fn tls(&mut self, tls: &Tls) {
        match &tls.verify {
            None => {
                self.key("trusts", &self.colors.paint(Style::Bad, "any certificate: nothing is verified"))
            }
            Some(verify) => {
                self.key("trusts", &trusted(verify));
                for pin in &verify.pins {
                    self.key("pinned", pin);
                }
            }
        }
        let shown = tls.client_certificate.as_ref();
        let shown = shown.map(|it| format!("{}, valid to {}", it.subject, it.valid_to));
        self.key("client certificate", &shown.unwrap_or_else(|| "none".into()));
        let (min, max) = tls.versions;
        let mut offered = vec![if min == max { format!("TLS {min}") } else { format!("TLS {min} to {max}") }];
        offered.extend((!tls.ciphers.is_empty()).then(|| format!("ciphers {}", tls.ciphers.join(":"))));
        offered.extend(tls.curves.as_ref().map(|curves| format!("curves {curves}")));
        offered.extend((!tls.session_reuse).then(|| "no session is resumed".to_owned()));
        self.key("offers", &offered.join(", "));
        if let Some(path) = &tls.key_log {
            self.key("secrets go to", path);
        }
    }

    fn retry(&mut self, part: &Forward) {
        let retry = &part.retry;
        if retry.on.is_empty() {
            return self.key("retry", "only where a kept connection turns out to be closed");
        }
        let budget =
            retry.budget.as_ref().map(|share| format!(", at most {share} of requests")).unwrap_or_default();
        self.key("retry", &format!("up to {} attempts, on {}{budget}", retry.attempts, retry.on.join(", ")));
        let (base, max) = &retry.backoff;
        self.key("", &format!("of {}; waits up to {base}, doubled to {max}", retry.methods.join(", ")));
    }

    /// As `diff` writes one, with the author of each change behind it.
    fn diff(&mut self, lines: &[Line]) {
        let width = lines.iter().map(|line| line.text.chars().count()).max().unwrap_or(0);
        for Line { change, text, by } in lines {
            let by = by.as_ref().map(|by| format!("  # {by}")).unwrap_or_default();
            let (mark, style) = match change {
                Change::Kept => (" ", None),
                Change::Removed => ("-", Some(Style::Bad)),
                Change::Added => ("+", Some(Style::Good)),
            };
            let padded = format!("{mark} {text:width$}");
            let painted = style.map_or_else(|| padded.clone(), |style| self.colors.paint(style, &padded));
            let by = self.colors.paint(Style::Aside, &by);
            self.line(&format!("{painted}{by}"));
        }
    }

    fn key(&mut self, key: &str, value: &str) {
        self.line(&format!("  {key:KEYS$}{value}"));
    }

    fn line(&mut self, line: &str) {
        let _ = writeln!(self.text, "{}", line.trim_end());
    }
}

fn trusted(verify: &Verify) -> String {
    const MOST: usize = 3;
    let mut told = match &verify.ca {
        None => vec!["the system's CAs".to_owned()],
        Some(cas) => {
            let mut named: Vec<_> = cas.iter().take(MOST).map(String::as_str).collect();
            let more = format!("{} more", cas.len().saturating_sub(MOST));
            named.extend((cas.len() > MOST).then_some(more.as_str()));
            vec![named.join(" and ")]
        }
    };
    told.extend((verify.crls > 0).then(|| format!("revocation lists: {}", verify.crls)));
    told.extend(verify.depth.map(|depth| format!("at most {depth} CAs between")));
    told.extend(verify.allow_common_name.then(|| "a common name counts where there is no other".to_owned()));
    told.join("; ")
}

#[cfg(test)]
mod tests {
    use super::super::tests::explained;
    use super::*;

    #[test]
    fn colours_are_all_that_a_terminal_gets_more() {
        let explanation = explained("GET", "http://a.test/api?x=1");
        let (plain, colored) = (render(&explanation, Colors::Off), render(&explanation, Colors::On));
        assert!(!plain.contains('\u{1b}') && colored.contains("\u{1b}[32mroute"), "{colored}");
        let mut pieces = colored.split('\u{1b}');
        let first = pieces.next().unwrap_or_default().to_owned();
        let rest = pieces.filter_map(|piece| piece.split_once('m')).map(|(_, text)| text);
        let bare = rest.fold(first, |all, text| all + text);
        let trimmed = |text: &str| text.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>();
        assert_eq!(trimmed(&bare), trimmed(&plain));
    }
}
