//! What programs read, held against the schemas beside the documentation: JSON Schema, as far as these go.
//!
//! Always holds: a keyword that is not known here fails, and so does a field that the schema does not name, also
//! where it would allow more to come.

use serde_json::{Map, Value};
use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap},
    sync::LazyLock,
};

/// A schema, and what of it was met in the answers so far.
pub(crate) struct Schema {
    file: String,
    met: RefCell<BTreeSet<String>>,
}

/// What of the schemas an answer meets, as `FILE POINTER`; or why it does not fit.
type Met = Result<BTreeSet<String>, String>;

impl Schema {
    /// What this verb's answers fit.
    pub(crate) fn of(verb: &str) -> Self {
        Self { file: format!("{verb}.schema.json"), met: RefCell::default() }
    }

    /// Panics where the answer does not fit.
    pub(crate) fn check(&self, answer: &str) {
        let answer: Value = serde_json::from_str(answer).unwrap_or_else(|error| panic!("{error} in {answer}"));
        match (At { file: &self.file, pointer: String::new() }).fits(&answer) {
            Ok(met) => self.met.borrow_mut().extend(met),
            Err(why) => panic!("{}: {why}", self.file),
        }
    }

    /// The fields and the words of lists that no answer had.
    pub(crate) fn not_met(&self) -> Vec<String> {
        let mut all = BTreeSet::new();
        named(document(&self.file), "", &mut all);
        let met = self.met.borrow();
        all.into_iter().filter(|pointer| !met.contains(&format!("{} {pointer}", self.file))).collect()
    }
}

static DOCUMENTS: LazyLock<HashMap<&str, Value>> = LazyLock::new(|| {
    let texts = [
        ("certificate.schema.json", include_str!("../../../../generator/schemas/certificate.schema.json")),
        ("diff.schema.json", include_str!("../../schemas/diff.schema.json")),
        ("lint.schema.json", include_str!("../../schemas/lint.schema.json")),
        ("reach.schema.json", include_str!("../../schemas/reach.schema.json")),
        ("replay.schema.json", include_str!("../../schemas/replay.schema.json")),
        ("why.schema.json", include_str!("../../schemas/why.schema.json")),
    ];
    texts.into_iter().map(|(file, text)| (file, serde_json::from_str(text).expect("JSON"))).collect()
});

fn document(file: &str) -> &'static Value {
    DOCUMENTS.get(file).unwrap_or_else(|| panic!("no schema {file}"))
}

/// Every field and every word that a schema names, as pointers.
fn named(schema: &Value, pointer: &str, all: &mut BTreeSet<String>) {
    for (key, value) in schema.as_object().into_iter().flatten() {
        let here = format!("{pointer}/{key}");
        match (key.as_str(), value) {
            ("properties", Value::Object(fields)) => all.extend(fields.keys().map(|name| format!("{here}/{name}"))),
            ("enum", Value::Array(words)) => all.extend(words.iter().map(|word| format!("{here}/{word}"))),
            _ => {}
        }
        named(value, &here, all);
    }
    for (index, value) in schema.as_array().into_iter().flatten().enumerate() {
        named(value, &format!("{pointer}/{index}"), all);
    }
}

/// A place in a schema.
struct At<'f> {
    file: &'f str,
    pointer: String,
}

impl At<'_> {
    fn below(&self, steps: &str) -> Self {
        Self { file: self.file, pointer: format!("{}/{steps}", self.pointer) }
    }

    fn fits(&self, value: &Value) -> Met {
        let document = document(self.file);
        let schema = document.pointer(&self.pointer).expect("a place in the schema");
        let schema = schema.as_object().ok_or_else(|| format!("{} is no schema", self.pointer))?;
        let mut met = BTreeSet::new();
        for (keyword, told) in schema {
            let more = self.fits_keyword(schema, keyword, told, value);
            met.extend(more.map_err(|why| if why.contains('\n') { why } else { format!("{why}\nin {value}") })?);
        }
        Ok(met)
    }

    fn fits_keyword(&self, schema: &Map<String, Value>, keyword: &str, told: &Value, value: &Value) -> Met {
        let here = format!("{}/{keyword}", self.pointer);
        let holds =
            |holds: bool| if holds { Ok(BTreeSet::new()) } else { Err(format!("{here} does not hold: {told}")) };
        let length = value.as_array().map(Vec::len);
        match keyword {
            "$schema" | "$id" | "$defs" | "title" | "description" => Ok(BTreeSet::new()),
            "$ref" => {
                let (file, pointer) = told.as_str().and_then(|to| to.split_once('#')).expect("a place");
                At { file: if file.is_empty() { self.file } else { file }, pointer: pointer.to_owned() }.fits(value)
            }
            "type" => {
                let types = told.as_array().map_or(std::slice::from_ref(told), Vec::as_slice);
                holds(types.iter().any(|name| is_a(value, name.as_str().expect("a type"))))
            }
            "const" => holds(told == value),
            "enum" => {
                holds(told.as_array().expect("words").contains(value))?;
                Ok(BTreeSet::from([format!("{} {here}/{value}", self.file)]))
            }
            "required" => {
                let names = told.as_array().expect("names").iter().map(|name| name.as_str().expect("a name"));
                let missing: Vec<&str> = names.filter(|name| value.get(name).is_none()).collect();
                if missing.is_empty() { Ok(BTreeSet::new()) } else { Err(format!("{here}: {missing:?} is missing")) }
            }
            "properties" => self.fits_fields(schema, value),
            "additionalProperties" => holds(value.is_object()),
            "propertyNames" => {
                let names = value.as_object().into_iter().flat_map(Map::keys);
                together(names.map(|name| self.below(keyword).fits(&name.as_str().into())))
            }
            "items" => together(value.as_array().into_iter().flatten().map(|item| self.below(keyword).fits(item))),
            "minItems" => holds(length.is_none_or(|length| told.as_u64() <= u64::try_from(length).ok())),
            "minimum" => holds(value.as_i64().is_none_or(|number| Some(number) >= told.as_i64())),
            "maximum" => holds(value.as_i64().is_none_or(|number| Some(number) <= told.as_i64())),
            "pattern" => holds(value.as_str().is_none_or(|text| matches(told.as_str().expect("a pattern"), text))),
            "format" => {
                assert_eq!(told, "date-time", "a format that is not known here");
                holds(value.as_str().is_none_or(|text| text.parse::<jiff::Timestamp>().is_ok()))
            }
            "allOf" => together(self.branches(keyword, told, value)),
            "anyOf" => {
                let all: Vec<Met> = self.branches(keyword, told, value).collect();
                holds(all.iter().any(Result::is_ok))?;
                Ok(all.into_iter().flatten().flatten().collect())
            }
            "oneOf" => {
                let all: Vec<Met> = self.branches(keyword, told, value).collect();
                holds(all.iter().filter(|one| one.is_ok()).count() == 1)?;
                Ok(all.into_iter().flatten().flatten().collect())
            }
            "not" => holds(self.below(keyword).fits(value).is_err()),
            other => panic!("{}: keyword {other} is not known here", self.pointer),
        }
    }

    fn branches(&self, keyword: &str, all: &Value, value: &Value) -> impl Iterator<Item = Met> {
        let count = all.as_array().expect("alternatives").len();
        (0..count).map(move |index| self.below(&format!("{keyword}/{index}")).fits(value))
    }

    /// Each field by its own schema, or by that of others.
    fn fits_fields(&self, schema: &Map<String, Value>, value: &Value) -> Met {
        let others = schema.get("additionalProperties").filter(|others| others.is_object());
        together(value.as_object().into_iter().flatten().map(|(name, field)| {
            if schema["properties"].get(name).is_none() {
                return match others {
                    Some(_) => self.below("additionalProperties").fits(field),
                    None => Err(format!("{}: {name} is not known", self.pointer)),
                };
            }
            let at = self.below(&format!("properties/{name}"));
            let mut met = at.fits(field)?;
            met.insert(format!("{} {}", at.file, at.pointer));
            Ok(met)
        }))
    }
}

fn together(all: impl Iterator<Item = Met>) -> Met {
    all.collect::<Result<Vec<_>, _>>().map(|all| all.into_iter().flatten().collect())
}

fn is_a(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "null" => value.is_null(),
        "number" => value.is_number(),
        other => panic!("type {other} is not known here"),
    }
}

/// The patterns of our schemas, as no crate of expressions is linked.
fn matches(pattern: &str, text: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match pattern {
        "^PF[0-9]{3}$" => text.len() == 5 && text.strip_prefix("PF").is_some_and(is_number),
        "^[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*$" => text
            .split(',')
            .all(|range| range.split_once('-').map_or(is_number(range), |(a, b)| is_number(a) && is_number(b))),
        other => panic!("pattern {other} is not known here"),
    }
}

#[test]
fn what_does_not_fit_is_told_and_what_fits_is_counted() {
    let schema = Schema::of("lint");
    let at = At { file: &schema.file, pointer: String::new() };
    let answer = |fields: &str| -> Value {
        let all = r#""name":"n","severity":"note","file":null,"line":1,"object":"o","field":"","what":"w","why":"w""#;
        let text = format!(r#"{{"findings":[{{{all},{fields}}}],"suppressed":[],"unchecked":[]}}"#);
        serde_json::from_str(&text).expect("JSON")
    };
    let met = at.fits(&answer(r#""code":"PF001","fix":"f""#)).expect("it fits");
    assert!(met.contains("lint.schema.json /$defs/finding/properties/severity/enum/\"note\""), "{met:?}");
    for (fields, why) in [
        (r#""code":"PF01","fix":"f""#, "pattern does not hold"),
        (r#""code":"PF001""#, "[\"fix\"] is missing"),
        (r#""code":"PF001","fix":1"#, "type does not hold"),
        (r#""code":"PF001","fix":"f","more":1"#, "more is not known"),
    ] {
        let told = at.fits(&answer(fields)).expect_err("it does not fit");
        assert!(told.contains(why), "{told}");
    }
}
