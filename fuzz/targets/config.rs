//! Any bytes as a configuration: they are refused or compiled, and every problem can be printed.

#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use vestibule::config;
use vestibule::plugins::Registry;
use vestibule::snapshot::{self, Workshop};

/// An empty folder, so that no path of the input leads to a file.
static BASE: LazyLock<PathBuf> =
    LazyLock::new(|| tempfile::tempdir().expect("a folder for temporary files").keep());

fuzz_target!(|bytes: &[u8]| {
    let loaded = match config::parse("gateway.yaml", bytes, &BASE) {
        Ok(loaded) => loaded,
        Err(report) => {
            assert!(!report.to_string().is_empty(), "refused without a word");
            return;
        }
    };
    let problems = loaded.problems.len();
    // A new one each time, so that one input cannot depend on those before it.
    match snapshot::compile(&loaded, &Workshop::new(Registry::builtin())) {
        Ok(snapshot) => {
            assert_eq!(problems, 0, "what could not be decoded was compiled all the same");
            let _ = snapshot.warnings.to_string();
            // The same bytes mean the same.
            let again = snapshot::compile(&loaded, &Workshop::new(Registry::builtin()));
            assert!(again.is_ok_and(|again| again.hash == snapshot.hash));
        }
        Err(report) => assert!(!report.to_string().is_empty(), "refused without a word"),
    }
});
