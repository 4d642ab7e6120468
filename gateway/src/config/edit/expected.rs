//! What an edit means, on a tree without text: the specification that each edited text is held against.

use serde_yaml::{Mapping, Value};
use vestibule_plugins::{Path, Problem, Segment};

/// Writes `new` at the path, with the maps and lists on the way.
pub(super) fn set(root: &mut Value, path: &Path, new: Value) -> Result<(), Problem> {
    let mut value = root;
    for (depth, segment) in path.0.iter().enumerate() {
        let refuse = |message: String| Err(Problem::new(Path(path.0[..depth].to_vec()), message));
        value = match segment {
            Segment::Key(key) => {
                if let Value::Sequence(_) = value {
                    return refuse(format!("this is a list, which has no key `{key}`"));
                }
                if !value.is_mapping() {
                    *value = Value::Mapping(Mapping::new());
                }
                match value {
                    Value::Mapping(map) => map.entry(Value::from(key.as_str())).or_insert(Value::Null),
                    _ => return refuse("this is no map".into()),
                }
            }
            Segment::Index(index) => {
                if value.is_null() {
                    *value = Value::Sequence(Vec::new());
                }
                let Value::Sequence(items) = value else {
                    return refuse(format!("this is no list, so it has no item {index}"));
                };
                let count = items.len();
                if *index == count {
                    items.push(Value::Null);
                }
                match items.get_mut(*index) {
                    Some(item) => item,
                    None => {
                        return refuse(format!("the list has {count} items, so none becomes item {index}"));
                    }
                }
            }
        };
    }
    *value = new;
    Ok(())
}

/// Takes the path's last key or item out.
pub(super) fn remove(root: &mut Value, path: &Path) -> Result<(), Problem> {
    let absent = || Problem::new(path.clone(), "there is nothing here to take out");
    let (last, parents) = path.0.split_last().ok_or_else(absent)?;
    let mut value = root;
    for segment in parents {
        value = match segment {
            Segment::Key(key) => value.get_mut(key.as_str()),
            Segment::Index(index) => value.get_mut(*index),
        }
        .ok_or_else(absent)?;
    }
    match (value, last) {
        (Value::Mapping(map), Segment::Key(key)) => map.remove(key.as_str()).map(drop).ok_or_else(absent),
        (Value::Sequence(items), Segment::Index(index)) if *index < items.len() => {
            items.remove(*index);
            Ok(())
        }
        _ => Err(absent()),
    }
}

/// The value at a path.
pub(super) fn at<'a>(root: &'a Value, path: &[Segment]) -> Option<&'a Value> {
    path.iter().try_fold(root, |value, segment| match segment {
        Segment::Key(key) => value.get(key.as_str()),
        Segment::Index(index) => value.get(*index),
    })
}

/// The first path at which two trees are not the same.
pub(super) fn difference(a: &Value, b: &Value) -> Option<Path> {
    match (a, b) {
        (Value::Mapping(a_map), Value::Mapping(b_map)) => {
            let keys = a_map.keys().chain(b_map.keys().filter(|key| !a_map.contains_key(key)));
            keys.filter_map(|key| Some((key.as_str()?, a_map.get(key), b_map.get(key)))).find_map(
                |(key, a, b)| match (a, b) {
                    (Some(a), Some(b)) => Some(Path::root().key(key).join(&difference(a, b)?)),
                    _ => Some(Path::root().key(key)),
                },
            )
        }
        (Value::Sequence(a_items), Value::Sequence(b_items)) if a_items.len() == b_items.len() => {
            let mut pairs = a_items.iter().zip(b_items).enumerate();
            pairs.find_map(|(index, (a, b))| Some(Path::root().index(index).join(&difference(a, b)?)))
        }
        _ => (a != b).then(Path::root),
    }
}
