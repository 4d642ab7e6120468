//! Many requests as a table, a line each.

use std::fmt::Write;

use super::text::{Colors, Style};
use super::{Case, Difference, Explanation, Outcome};

/// Each case, the route that takes it and what becomes of it, without a judgement.
pub fn listed(cases: &[(Case, Explanation)]) -> String {
    let rows = cases.iter().map(|(case, explanation)| {
        let route = explanation.route.clone().unwrap_or_else(|| "none".into());
        [place(case), case.request.clone(), route, end(&explanation.outcome)]
    });
    aligned(&rows.collect::<Vec<_>>())
}

/// Each case as `ok` or `DIFFERENT`, and how many differ.
pub fn judged(cases: &[(Case, Explanation)], colors: Colors) -> (String, usize) {
    let mut different = 0;
    let rows = cases.iter().map(|(case, explanation)| {
        let found = case.differences(explanation);
        different += usize::from(!found.is_empty());
        let verdict = match found.is_empty() {
            true => colors.paint(Style::Good, "ok       "),
            false => colors.paint(Style::Bad, "DIFFERENT"),
        };
        let told: Vec<_> = found.iter().map(difference).collect();
        [verdict, place(case), case.request.clone(), told.join("; ")]
    });
    let rows: Vec<_> = rows.collect();
    (aligned(&rows), different)
}

fn place(case: &Case) -> String {
    format!("{}:{}", case.at.file.display(), case.at.line)
}

fn difference(Difference { key, expected, got }: &Difference) -> String {
    format!("{key}: expected {expected}, got {got}")
}

fn end(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Refused(refusal) => format!("{} {}", refusal.status, refusal.cause),
        Outcome::Answered(answer) => {
            let location = answer.location.as_ref().map(|to| format!(" to {to}")).unwrap_or_default();
            format!("{} by {}{location}", answer.status, answer.by)
        }
        Outcome::Forwarded { upstreams } => {
            let part = |part: &super::Forward| match upstreams.len() {
                1 => format!("{} {}", part.upstream.name, part.target),
                _ => format!(
                    "{} {} ({} of {})",
                    part.upstream.name, part.target, part.weight, part.total_weight
                ),
            };
            upstreams.iter().map(part).collect::<Vec<_>>().join(", ")
        }
    }
}

/// Columns as wide as their widest cell, but for the last, which ends where it ends.
fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut table = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        let _ = writeln!(table, "{}", line.trim_end());
    }
    table
}
