//! Request bodies as `/post` and `/anything` show them: raw data, and by content type form fields, files or JSON.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE;
use serde::Serialize;
use serde_json::Value;

use crate::query;

/// Parts of a multipart body that are read.
const MAX_PARTS: usize = 1_000;

pub type Values = BTreeMap<String, Vec<String>>;

/// What a body holds; fields in go-httpbin's order.
#[derive(Debug, Default, Serialize, PartialEq)]
pub struct Body {
    pub data: String,
    pub files: Values,
    pub form: Values,
    pub json: Value,
}

/// Fails where the body is not what its content type says.
pub fn parse(content_type: &str, body: &[u8]) -> Result<Body, String> {
    if body.is_empty() {
        return Ok(Body::default());
    }
    let data = String::from_utf8_lossy(body).into_owned();
    let kind = content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    match kind.as_str() {
        "text/html" | "text/plain" => Ok(Body {
            data,
            ..Body::default()
        }),
        "application/x-www-form-urlencoded" => Ok(Body {
            form: group(query::pairs(&data)),
            data,
            ..Body::default()
        }),
        "application/json" => {
            let json = serde_json::from_slice(body).map_err(|error| error.to_string())?;
            Ok(Body {
                data,
                json,
                ..Body::default()
            })
        }
        "multipart/form-data" => {
            let (form, files) = multipart(content_type, body)?;
            Ok(Body {
                data,
                form,
                files,
                ..Body::default()
            })
        }
        _ => {
            let kind = if kind.is_empty() {
                "application/octet-stream"
            } else {
                &kind
            };
            Ok(Body {
                data: format!("data:{kind};base64,{}", BASE64_URL_SAFE.encode(body)),
                ..Body::default()
            })
        }
    }
}

pub fn group(pairs: Vec<(String, String)>) -> Values {
    let mut values = Values::new();
    for (name, value) in pairs {
        values.entry(name).or_default().push(value);
    }
    values
}

/// Form fields and files by name.
fn multipart(content_type: &str, body: &[u8]) -> Result<(Values, Values), String> {
    let boundary = content_type
        .split(';')
        .find_map(|part| part.trim().strip_prefix("boundary="))
        .ok_or("multipart body without boundary")?;
    let delimiter = format!("\r\n--{}", boundary.trim_matches('"'));
    // The first delimiter stands at the start, without the line end that the others have.
    let body = [b"\r\n", body].concat();
    let (mut form, mut files) = (Values::new(), Values::new());
    let mut parts = split(&body, delimiter.as_bytes()).into_iter().skip(1);
    for part in parts.by_ref().take(MAX_PARTS) {
        if part.starts_with(b"--") {
            return Ok((form, files));
        }
        let part = part
            .strip_prefix(b"\r\n")
            .ok_or("malformed multipart delimiter")?;
        let end = find(part, b"\r\n\r\n").ok_or("multipart part without headers")?;
        let (head, content) = part.split_at(end);
        let head = String::from_utf8_lossy(head);
        let name = parameter(&head, "name").ok_or("multipart part without name")?;
        let target = if parameter(&head, "filename").is_some() {
            &mut files
        } else {
            &mut form
        };
        let content = content.get(4..).unwrap_or_default();
        target
            .entry(name)
            .or_default()
            .push(String::from_utf8_lossy(content).into_owned());
    }
    Err("multipart body without end, or with too many parts".to_owned())
}

/// `name="VALUE"` of the Content-Disposition line.
fn parameter(head: &str, name: &str) -> Option<String> {
    let line = head.lines().find(|line| {
        line.to_ascii_lowercase()
            .starts_with("content-disposition:")
    })?;
    line.split(';').find_map(|part| {
        Some(
            part.trim()
                .strip_prefix(name)?
                .strip_prefix('=')?
                .trim_matches('"')
                .to_owned(),
        )
    })
}

fn find(text: &[u8], pattern: &[u8]) -> Option<usize> {
    text.windows(pattern.len())
        .position(|window| window == pattern)
}

fn split<'a>(mut text: &'a [u8], delimiter: &[u8]) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    while let Some(at) = find(text, delimiter) {
        let (part, rest) = text.split_at(at);
        parts.push(part);
        text = rest.get(delimiter.len()..).unwrap_or_default();
    }
    parts.push(text);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn content_type_decides() {
        assert_eq!(
            parse("application/json", b"{\"a\":1}").unwrap().json,
            json!({"a": 1})
        );
        assert_eq!(
            parse("application/x-www-form-urlencoded", b"a=1&a=2")
                .unwrap()
                .form["a"],
            ["1", "2"]
        );
        assert_eq!(
            parse("", b"\xff").unwrap().data,
            "data:application/octet-stream;base64,_w=="
        );
        assert!(parse("application/json", b"{").is_err());
    }

    #[test]
    fn multipart_has_fields_and_files() {
        let body = "--B\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--B\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x\"\r\n\
                    Content-Type: text/plain\r\n\r\nline\r\nline\r\n--B--\r\n";
        let got = parse("multipart/form-data; boundary=B", body.as_bytes()).unwrap();
        assert_eq!(got.form["a"], ["1"]);
        assert_eq!(got.files["f"], ["line\r\nline"]);
        assert!(parse("multipart/form-data; boundary=B", b"--B\r\n").is_err());
    }
}
