//! Each wrong file beside the exact text that a person sees of it.

use std::path::Path;
use std::{env, fs};

use vestibule_plugins::Registry;

use super::{Workshop, compile};
use crate::config::parse;

#[test]
fn every_wrong_file_is_refused_in_exactly_these_words() {
    golden(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden"));
}

/// Compares each `NAME.yaml` of the folder with its `NAME.err`; rewrites them where `VESTIBULE_BLESS=1`.
fn golden(folder: &Path) {
    let bless = env::var("VESTIBULE_BLESS").is_ok_and(|value| value == "1");
    let mut differ = Vec::new();
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_none_or(|end| end != "yaml") {
            continue;
        }
        count += 1;
        let name = format!("golden/{}", file.file_name().unwrap().to_string_lossy());
        let loaded = parse(&name, &fs::read_to_string(&file).unwrap(), folder);
        let workshop = Workshop::new(Registry::builtin());
        let report = loaded
            .and_then(|loaded| compile(loaded, &workshop))
            .err()
            .unwrap_or_else(|| panic!("{name} is not refused"));
        // Where the files lie on this machine is not a part of what they teach.
        let told = format!("{report}\n").replace(&format!("{}/", folder.display()), "golden/");
        let expected = file.with_extension("err");
        if bless {
            fs::write(&expected, told).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != told {
            differ.push(format!("{name} is told as\n{told}"));
        }
    }
    assert!(count >= 60, "only {count} wrong files");
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}
