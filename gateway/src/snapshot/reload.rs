//! From `reload:` to how the next configuration comes in force. The admin endpoint and the command line compile their
//! own stages here too.

use std::time::Duration;

use http::HeaderName;
use vestibule_plugins::decode::shown;
use vestibule_plugins::{DurationText, Path, Problem};

use crate::config::{ReloadConfig, StageConfig};
use crate::reload::stage::StageSettings;

/// What brings a changed file in force, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reload {
    /// Whether a change of a file does.
    pub watch: bool,
    /// How a candidate is tried; `None` puts it in force at once.
    pub stage: Option<StageSettings>,
}

/// Headers without which a request is not what it was.
const OF_HTTP: [&str; 9] = [
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "host",
    "te",
    "transfer-encoding",
    "upgrade",
];
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Compiles the section; nothing where it has a problem.
pub fn compile(config: &ReloadConfig, problems: &mut Vec<Problem>) -> Option<Reload> {
    let at = Path::root().key("reload").key("stage");
    let stage = match &config.stage {
        Some(config) => Some(stage(config, &at, problems)?),
        None => None,
    };
    Some(Reload { watch: config.watch, stage })
}

/// Compiles a stage that stands at `at`, with the defaults of what is absent; nothing where it has a problem.
pub fn stage(config: &StageConfig, at: &Path, problems: &mut Vec<Problem>) -> Option<StageSettings> {
    let before = problems.len();
    let default = StageSettings::default();
    let share = config.share.unwrap_or(default.share);
    if share.basis_points() == 0 {
        let message = "a share of `0%` shows the candidate to nobody; `0.01%` to `100%` are allowed";
        problems.push(Problem::new(at.key("share"), message));
    }
    let lasts = config.r#for.map_or(default.lasts, |DurationText(lasts)| lasts);
    if !(SHORTEST..=LONGEST).contains(&lasts) {
        let message = format!("a stage lasts from `1s` to `24h`, got `{}`", DurationText(lasts));
        problems.push(Problem::new(at.key("for"), message));
    }
    let header = config.header.as_ref().map(|name| HeaderName::from_bytes(name.as_bytes()).map_err(|_| name));
    let header = header.transpose().map_err(|name| {
        let message = format!("`{}` is no name of a header", shown(name));
        problems
            .push(Problem::new(at.key("header"), message).hint("write a name such as `x-vestibule-side`"));
    });
    if let Ok(Some(name)) = &header
        && OF_HTTP.contains(&name.as_str())
    {
        let message = format!("`{name}` has a meaning of its own, and would be taken off each request");
        problems
            .push(Problem::new(at.key("header"), message).hint("write a name such as `x-vestibule-side`"));
    }
    let guards = config.guards.as_ref().map(|guards| guards.iter().map(|guard| guard.0).collect());
    let settings = StageSettings {
        share,
        lasts,
        guards: guards.unwrap_or(default.guards),
        header: header.ok()?,
        min_requests: config.min_requests.unwrap_or(default.min_requests),
    };
    (problems.len() == before).then_some(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiled(yaml: &str) -> Result<Option<StageSettings>, Vec<String>> {
        let mut problems = Vec::new();
        let reload = compile(&serde_yaml::from_str(yaml).unwrap(), &mut problems);
        let told = problems.iter().map(|Problem { path, message, .. }| format!("{path}: {message}"));
        reload.map(|reload| reload.stage).ok_or_else(|| told.collect())
    }

    #[test]
    fn without_a_stage_a_reload_is_at_once_and_an_empty_one_has_the_defaults() {
        let default = StageSettings::default();
        assert_eq!(compiled("{}"), Ok(None));
        assert_eq!(compiled("stage: {}"), Ok(Some(default.clone())));
        assert_eq!(compiled("stage:"), Ok(Some(default.clone())));
        let told = serde_yaml::to_string(&StageConfig::from(&default)).unwrap();
        let told: StageConfig = serde_yaml::from_str(&told).unwrap();
        assert_eq!(stage(&told, &Path::root(), &mut Vec::new()), Some(default));
    }

    #[test]
    fn the_limits_of_a_stage_are_allowed_and_what_is_beyond_is_not() {
        fn check(stage: &str, refused: Option<&str>) {
            let compiled = compiled(&format!("stage: {{ {stage} }}"));
            match refused {
                None => assert!(matches!(&compiled, Ok(Some(_))), "{stage}: {compiled:?}"),
                Some(told) => assert_eq!(compiled, Err(vec![format!("reload.stage.{told}")]), "{stage}"),
            }
        }
        check("share: 0.01%", None);
        check("share: 100%", None);
        check(
            "share: 0%",
            Some("share: a share of `0%` shows the candidate to nobody; `0.01%` to `100%` are allowed"),
        );
        check("for: 1s", None);
        check("for: 24h", None);
        check("for: 999ms", Some("for: a stage lasts from `1s` to `24h`, got `999ms`"));
        check("for: 24h1ms", Some("for: a stage lasts from `1s` to `24h`, got `24h1ms`"));
        check("header: X-Side", None);
        check("header: 'x side'", Some("header: `x side` is no name of a header"));
        check(
            "header: Host",
            Some("header: `host` has a meaning of its own, and would be taken off each request"),
        );
        check("header: ''", Some("header: `` is no name of a header"));
        check("guards: []", None);
        check("min_requests: 0", None);
    }
}
