//! host-local's `resolvConf`: a file as in resolv.conf(5) becomes the result's `dns`.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::Error;

/// Whether a network's own `dns` says anything, and so counts instead; the reference plugins ask the same.
pub(super) fn is_said(dns: &Value) -> bool {
    let is_nothing = |value: &Value| value.is_null() || value == "";
    !dns.as_object().is_some_and(|keys| keys.values().all(is_nothing))
}

/// Reads `path`.
pub(super) fn read(path: &Path) -> Result<Value, Error> {
    let text = fs::read_to_string(path).map_err(|error| {
        Error::config("ipam.resolvConf", format!("{}: {error}", path.display()))
    })?;
    Ok(dns(&text))
}

fn dns(text: &str) -> Value {
    let mut dns = json!({});
    let mut append = |key: &str, values: &[&str]| {
        if let Some(list) = dns[key].as_array_mut() {
            list.extend(values.iter().map(|value| json!(value)));
        } else {
            dns[key] = json!(values);
        }
    };
    let mut domain = None;
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let key = words.next().unwrap_or_default();
        let values: Vec<_> = words.collect();
        match (key, values.as_slice()) {
            ("nameserver", [server, ..]) => append("nameservers", &[*server]),
            ("search", values) => append("search", values),
            ("options", values) => append("options", values),
            ("domain", [name, ..]) => domain = Some(*name),
            _ => {}
        }
    }
    if let Some(domain) = domain {
        dns["domain"] = json!(domain);
    }
    dns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolv_conf_becomes_dns() {
        let text = "# by hand\nnameserver 10.0.0.10\nnameserver fd00::10\ndomain c.local\nsearch a.b c.d\noptions ndots:5\n";
        assert_eq!(
            dns(text),
            json!({"nameservers": ["10.0.0.10", "fd00::10"], "domain": "c.local",
                "search": ["a.b", "c.d"], "options": ["ndots:5"]})
        );
        assert_eq!(dns(""), json!({}));
    }
}
