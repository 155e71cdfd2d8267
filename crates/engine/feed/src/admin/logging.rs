//! `/logging`: levels by logger, under Envoy's names for the parts that this proxy has too.

use std::collections::BTreeMap;

/// Envoy's logger → our module.
const LOGGERS: [(&str, &str); 13] = [
    ("admin", "feed::admin"),
    ("config", "feed::session"),
    ("conn_handler", "proxy::listen"),
    ("connection", "proxy::tls"),
    ("dns", "feed::resolve"),
    ("file", "proxy::report"),
    ("filter", "proxy::filters"),
    ("http", "proxy::codec"),
    ("main", "tanbark_proxy"),
    ("router", "proxy::exchange"),
    ("secret", "feed::certificates"),
    ("tracing", "feed::spans"),
    ("upstream", "proxy::upstream"),
];

const USAGE: &str = "\
usage: /logging?<name>=<level> (change single level)
usage: /logging?paths=name1:level1,name2:level2,... (change multiple levels)
usage: /logging?level=<level> (change all levels)
levels: trace debug info warning error critical off
";

/// The levels in force.
#[derive(Debug, Clone)]
pub struct Loggers {
    /// Of everything that has no level of its own.
    all: &'static str,
    named: BTreeMap<&'static str, &'static str>,
}

impl Loggers {
    /// As the process was started: the first level without a name in `directives`
    /// (`info,feed=debug`), else `info`.
    pub fn new(directives: &str) -> Self {
        let mut bare = directives
            .split(',')
            .filter(|directive| !directive.contains('='));
        Self {
            all: bare.find_map(level).unwrap_or("info"),
            named: BTreeMap::new(),
        }
    }

    /// The levels that a query asks for. An error says what is wrong and how it is done.
    pub(super) fn changed(&self, query: &str) -> Result<Self, String> {
        let mut next = self.clone();
        let wrong = |what: &str| Err(format!("error: {what}\n\n{USAGE}{}", self.list()));
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            match key {
                "level" => {
                    let Some(level) = level(value) else {
                        return wrong("unknown logger level");
                    };
                    next = Self {
                        all: level,
                        named: BTreeMap::new(),
                    };
                }
                "paths" => {
                    for change in value.split(',') {
                        let (name, value) = change.split_once(':').unwrap_or((change, ""));
                        match (logger(name), level(value)) {
                            (None, _) => return wrong("unknown logger name"),
                            (_, None) => return wrong("unknown logger level"),
                            (Some(name), Some(level)) => drop(next.named.insert(name, level)),
                        }
                    }
                }
                name => match (logger(name), level(value)) {
                    (None, _) => return wrong("unknown logger name"),
                    (_, None) => return wrong("unknown logger level"),
                    (Some(name), Some(level)) => drop(next.named.insert(name, level)),
                },
            }
        }
        Ok(next)
    }

    /// As our log takes them: `info,proxy::upstream=debug`.
    pub fn directives(&self) -> String {
        let mut text = ours(self.all).to_owned();
        for (name, module) in LOGGERS {
            if let Some(level) = self.named.get(name) {
                text.push_str(&format!(",{module}={}", ours(level)));
            }
        }
        text
    }

    /// As Envoy lists them.
    pub(super) fn list(&self) -> String {
        let mut text = "active loggers:\n".to_owned();
        for (name, _) in LOGGERS {
            let level = self.named.get(name).unwrap_or(&self.all);
            text.push_str(&format!("  {name}: {level}\n"));
        }
        text
    }
}

fn logger(name: &str) -> Option<&'static str> {
    let found = LOGGERS.iter().find(|(known, _)| *known == name)?;
    Some(found.0)
}

/// By Envoy's name.
fn level(name: &str) -> Option<&'static str> {
    Some(match name {
        "trace" => "trace",
        "debug" => "debug",
        "info" => "info",
        "warning" | "warn" => "warning",
        "error" => "error",
        "critical" => "critical",
        "off" => "off",
        _ => return None,
    })
}

fn ours(level: &str) -> &str {
    match level {
        "warning" => "warn",
        "critical" => "error",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_by_logger_become_directives() {
        let start = Loggers::new("warn,feed=debug");
        assert_eq!(start.directives(), "warn");
        let one = start.changed("upstream=debug").unwrap();
        assert_eq!(one.directives(), "warn,proxy::upstream=debug");
        let more = one.changed("paths=http:trace,upstream:critical").unwrap();
        assert_eq!(
            more.directives(),
            "warn,proxy::codec=trace,proxy::upstream=error"
        );
        assert!(more.list().contains("  http: trace\n  main: warning\n"));
        assert_eq!(more.changed("level=off").unwrap().directives(), "off");
        for (query, why) in [
            ("level=loud", "unknown logger level"),
            ("nothing=debug", "unknown logger name"),
            ("paths=http:loud", "unknown logger level"),
        ] {
            let error = start.changed(query).unwrap_err();
            assert!(error.contains(why) && error.contains("usage:"), "{error}");
        }
    }
}
