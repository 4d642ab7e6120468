//! Each wrong file, and each doubtful one, beside the exact text that a person sees of it.

use std::path::{Path, PathBuf};
use std::{env, fs};

use jiff::Timestamp;
use vestibule_plugins::Registry;

use super::{Report, Snapshot, Workshop, compile};
use crate::config::parse;

#[test]
fn every_wrong_file_is_refused_in_exactly_these_words() {
    let folder = folder();
    let count = golden("golden", &folder, &folder, |compiled, name| match compiled {
        Ok(_) => panic!("{name} is not refused"),
        Err(report) => report.to_string(),
    });
    assert!(count >= 60, "only {count} wrong files");
}

#[test]
fn every_doubtful_file_is_warned_of_in_exactly_these_words() {
    let folder = folder().join("warnings");
    let copy = with_modes(&folder.join("keys"));
    let count = golden("golden/warnings", &folder, copy.path(), |compiled, name| match compiled {
        Ok(snapshot) if snapshot.warnings.count() > 0 => snapshot.warnings.to_string(),
        Ok(_) => panic!("{name} gives no warning"),
        Err(report) => panic!("{name} is refused: {report}"),
    });
    assert!(count >= 8, "only {count} doubtful files");
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden")
}

/// The files of a folder below another one, with the modes that their names tell: git keeps none.
fn with_modes(folder: &Path) -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;

    let base = tempfile::tempdir().unwrap();
    fs::create_dir(base.path().join("keys")).unwrap();
    for entry in fs::read_dir(folder).unwrap() {
        let from = entry.unwrap().path();
        let name = from.file_name().unwrap().to_str().unwrap();
        let mode = match name {
            "readable.key" => 0o644,
            "writable.key" | "writable.crt" => 0o666,
            // Its group may: that is whom the owner lets.
            _ if name.ends_with(".key") => 0o640,
            _ => 0o644,
        };
        let to = base.path().join("keys").join(name);
        fs::copy(&from, &to).unwrap();
        fs::set_permissions(&to, fs::Permissions::from_mode(mode)).unwrap();
    }
    base
}

/// Compares what is told of each `NAME.yaml` of the folder with its `NAME.err`; rewrites them where
/// `VESTIBULE_BLESS=1`. The paths in the files start at `base`. Returns how many files there are.
fn golden(
    shown: &str,
    folder: &Path,
    base: &Path,
    tell: impl Fn(Result<Snapshot, Report>, &str) -> String,
) -> usize {
    let bless = env::var("VESTIBULE_BLESS").is_ok_and(|value| value == "1");
    let mut differ = Vec::new();
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_none_or(|end| end != "yaml") {
            continue;
        }
        count += 1;
        let name = format!("{shown}/{}", file.file_name().unwrap().to_string_lossy());
        let loaded = parse(&name, fs::read_to_string(&file).unwrap(), base);
        let mut workshop = Workshop::new(Registry::builtin());
        // 2030-01-01: the certificates of the warnings are made for this day.
        workshop.now = || Timestamp::from_second(1_893_456_000).unwrap();
        let told = tell(loaded.and_then(|loaded| compile(&loaded, &workshop)), &name);
        // Where the files lie on this machine is not a part of what they teach.
        let told = format!("{told}\n").replace(&format!("{}/", base.display()), &format!("{shown}/"));
        let expected = file.with_extension("err");
        if bless {
            fs::write(&expected, told).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != told {
            differ.push(format!("{name} is told as\n{told}"));
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
    count
}
