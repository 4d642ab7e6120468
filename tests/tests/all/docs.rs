//! What the documentation prints is so: configurations are good or refused in just these words, tables and
//! quotations are those of the source, links lead somewhere. What it says of requests is in `claims`.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use vestibule_tests::gateway::binary;

use crate::claims::custom_plugin;
use crate::example::repository;
use crate::page::Page;

#[test]
fn every_configuration_in_the_documentation_is_good() {
    let mut count = 0;
    for block in Page::all().iter().flat_map(Page::blocks).filter(|block| block.kind == "yaml") {
        let program = if block.text.contains("maintenance:") { custom_plugin() } else { binary() };
        let out = block.example().check(&program);
        assert!(out.status.success(), "{}\n{}", block.place, String::from_utf8_lossy(&out.stderr));
        count += 1;
    }
    assert!(count >= 20, "only {count} blocks were found");
}

#[test]
fn every_wrong_configuration_in_the_documentation_is_refused_as_printed_below_it() {
    for page in Page::all() {
        let blocks = page.blocks();
        for (block, next) in
            blocks.iter().zip(blocks.iter().skip(1)).filter(|(block, _)| block.kind == "yaml wrong")
        {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("gateway.yaml"), &block.text).unwrap();
            let mut command = Command::new(binary());
            let out = command.args(["check", "-c", "gateway.yaml"]).current_dir(&folder).output().unwrap();
            assert_eq!(out.status.code(), Some(1), "{}", block.place);
            assert_eq!(String::from_utf8_lossy(&out.stderr), next.text, "{}", next.place);
        }
    }
}

#[test]
fn every_key_of_the_schema_is_in_the_documentation() {
    let text: String = Page::all().iter().map(|page| page.text.clone()).collect();
    let out = Command::new(binary()).arg("schema").output().unwrap();
    let schema: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let mut keys = BTreeSet::new();
    collect_keys(&schema, &mut keys);
    assert!(keys.contains("client_certificate") && keys.contains("replace_prefix"), "{keys:?}");
    let told = |key: &&String| {
        [format!("`{key}"), format!(".{key}`"), format!("{key}:"), format!("{key} }}")]
            .iter()
            .any(|form| text.contains(form))
    };
    let untold: Vec<_> = keys.iter().filter(|key| !told(key)).collect();
    assert!(untold.is_empty(), "keys that no page tells of: {untold:?}");
}

fn collect_keys(schema: &serde_json::Value, keys: &mut BTreeSet<String>) {
    match schema {
        serde_json::Value::Object(map) => {
            if let Some(properties) = map.get("properties").and_then(|properties| properties.as_object()) {
                keys.extend(properties.keys().cloned());
            }
            map.values().for_each(|value| collect_keys(value, keys));
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| collect_keys(item, keys)),
        _ => {}
    }
}

#[test]
fn the_table_of_causes_is_the_one_of_the_source() {
    let source = fs::read_to_string(repository().join("gateway/src/diagnose/cause.rs")).unwrap();
    let rows = source.split_once("causes! {").unwrap().1.split_once("impl Cause").unwrap().0;
    // Three literals a row: code, what happened, what mends it.
    let literals: Vec<String> = rows.split('"').skip(1).step_by(2).map(str::to_owned).collect();
    let expected: Vec<&[String]> = literals.chunks(3).collect();
    let table = Page::read("docs/upstream-tls.md").table("| code | what happened | what mends it |");
    assert!(expected.len() > 20 && expected.iter().all(|row| row.len() == 3), "the source is not as it was");
    for (told, expected) in table.iter().zip(&expected) {
        // A cell that begins or ends in a quotation has lost that backtick.
        let bare = |row: &[String]| row.iter().map(|cell| cell.replace('`', "")).collect::<Vec<_>>();
        assert_eq!(bare(told), bare(expected));
    }
    assert_eq!(table.len(), expected.len());
}

#[test]
fn what_the_documentation_quotes_of_the_custom_plugin_stands_in_it() {
    let source = fs::read_to_string(repository().join("gateway/examples/custom_plugin.rs")).unwrap();
    let blocks = Page::read("docs/plugins.md").blocks();
    let quoted: Vec<_> = blocks.iter().filter(|block| block.kind == "rust").collect();
    assert!(!quoted.is_empty());
    for block in quoted {
        assert!(source.contains(&block.text), "{} is not in the example", block.place);
    }
}

#[test]
fn every_link_in_the_documentation_leads_somewhere() {
    for page in Page::all() {
        let folder = repository().join(&page.path).parent().unwrap().to_owned();
        for link in page.text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            if file.starts_with("http") {
                continue;
            }
            let target = if file.is_empty() { repository().join(&page.path) } else { folder.join(file) };
            assert!(target.exists(), "{}: `{link}` leads nowhere", page.path.display());
            if !anchor.is_empty() {
                let text = fs::read_to_string(target).unwrap();
                let mut heads = text.lines().filter_map(|line| line.strip_prefix('#'));
                let is_there = heads.any(|head| {
                    let head = head.trim_start_matches('#').trim().to_lowercase();
                    head.replace(' ', "-").replace(['`', ','], "") == anchor
                });
                assert!(is_there, "{}: `{link}` has no such heading", page.path.display());
            }
        }
    }
}
