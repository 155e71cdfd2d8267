//! Certificates of a proxy: names, serial numbers, validity. Keys are not in the dump and are never shown.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use identity::CertificateChain;
use serde_json::Value;

use super::dump::{path, text};
use super::source::Source;
use crate::output::{Cell, Table, Tone};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub source: Source,
}

pub fn table(secrets: &[Value], now: jiff::Timestamp) -> Table {
    let mut table = Table::new([
        "RESOURCE NAME",
        "TYPE",
        "STATUS",
        "VALID CERT",
        "SERIAL NUMBER",
        "NOT AFTER",
        "NOT BEFORE",
    ]);
    for entry in secrets {
        for row in rows(entry, now) {
            table.row(row);
        }
    }
    table
}

fn rows(entry: &Value, now: jiff::Timestamp) -> Vec<[Cell; 7]> {
    let (name, state) = (text(entry, "name"), text(entry, "state"));
    let chain = inline(entry, "secret.tls_certificate.certificate_chain");
    let roots = inline(entry, "secret.validation_context.trusted_ca");
    let (kind, pem) = match (chain, roots) {
        (Some(pem), _) => ("Cert Chain", Some(pem)),
        (None, Some(pem)) => ("CA", Some(pem)),
        (None, None) => ("", None),
    };
    let plain = |valid: &str, tone: Tone| {
        [
            name.into(),
            kind.into(),
            state.into(),
            Cell(valid.into(), tone),
            "".into(),
            "".into(),
            "".into(),
        ]
    };
    let Some(pem) = pem else {
        return vec![plain("unknown", Tone::Faint)];
    };
    let Some(leaf) = CertificateChain::from_pem(&pem)
        .ok()
        .and_then(|chain| chain.leaf().ok())
    else {
        return vec![plain("false", Tone::Bad)];
    };
    let valid = (leaf.not_before..=leaf.not_after).contains(&now.as_second());
    let time = |seconds: i64| {
        jiff::Timestamp::from_second(seconds)
            .map(|time| time.to_string())
            .unwrap_or_default()
    };
    let tone = if valid { Tone::Good } else { Tone::Bad };
    vec![[
        name.into(),
        kind.into(),
        state.into(),
        Cell(valid.to_string(), tone),
        leaf.serial.clone().into(),
        time(leaf.not_after).into(),
        time(leaf.not_before).into(),
    ]]
}

/// PEM that a secret holds inline, as bytes in base64 or as text.
fn inline(entry: &Value, place: &str) -> Option<String> {
    let source = path(entry, place)?;
    let plain = text(source, "inline_string");
    if !plain.is_empty() {
        return Some(plain.to_owned());
    }
    let bytes = BASE64.decode(text(source, "inline_bytes")).ok()?;
    String::from_utf8(bytes)
        .ok()
        .filter(|text| !text.is_empty())
}
