//! Evolution's environment variables that win over `[server]` (contract section 4).

use super::{Problem, ServerConfig, codes};
use crate::plugin::Environment;

/// Applies the variables to what the file says, and returns what could not be used.
pub(super) fn apply(server: &mut ServerConfig, environment: &Environment) -> Vec<Problem> {
    let mut problems = Vec::new();
    let set = |name| {
        environment
            .get(name)
            .filter(|value| !value.trim().is_empty())
    };
    if let Some(port) = set("SERVER_PORT") {
        match parse_int(port).map(u16::try_from) {
            Some(Ok(port)) => server.listen.set_port(port),
            // The value itself is not shown: it came from outside the file.
            _ => problems.push(
                Problem::new(
                    codes::BAD_ENVIRONMENT,
                    format!(
                        "SERVER_PORT is not a port number, so the port stays {}",
                        server.listen.port()
                    ),
                )
                .help("set it to a number from 1 to 65535, or unset it")
                .warning(),
            ),
        }
    }
    if let Some(key) = set("AUTHENTICATION_API_KEY") {
        server.api_key = Some(key.to_owned());
    }
    if let Some(origins) = set("CORS_ORIGIN") {
        let origins = origins.split(',').map(str::trim);
        server.cors_origins = origins
            .filter(|origin| !origin.is_empty())
            .map(str::to_owned)
            .collect();
    }
    problems
}

/// `parseInt(text) || nothing`: the digits that the text begins with; garbage and 0 are nothing.
fn parse_int(text: &str) -> Option<i64> {
    let text = text.trim_start();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let digits: String = digits.chars().take_while(char::is_ascii_digit).collect();
    let number: i64 = digits.parse().ok()?;
    let number = if negative { -number } else { number };
    (number != 0).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(name: &str, value: &str) -> (ServerConfig, Vec<Problem>) {
        let mut server = ServerConfig::default();
        let environment = [(name.to_owned(), value.to_owned())].into_iter().collect();
        let problems = apply(&mut server, &environment);
        (server, problems)
    }

    #[test]
    fn the_port_is_read_as_evolution_reads_it() {
        for (text, port) in [("9000", 9000), (" 9000abc", 9000), ("+81", 81), ("", 8080)] {
            let (server, problems) = applied("SERVER_PORT", text);
            assert_eq!((server.listen.port(), problems.len()), (port, 0), "{text}");
        }
        for text in ["abc", "0", "-5", "70000", "99999999999999999999"] {
            let (server, problems) = applied("SERVER_PORT", text);
            assert_eq!((server.listen.port(), problems.len()), (8080, 1), "{text}");
            assert_eq!(problems[0].severity, super::super::Severity::Warning);
        }
    }

    #[test]
    fn key_and_origins_win_when_they_are_not_empty() {
        let (server, _) = applied("AUTHENTICATION_API_KEY", "k");
        assert_eq!(server.api_key.as_deref(), Some("k"));
        assert_eq!(applied("AUTHENTICATION_API_KEY", "").0.api_key, None);
        let (server, _) = applied("CORS_ORIGIN", "https://a.example, https://b.example,");
        assert_eq!(
            server.cors_origins,
            ["https://a.example", "https://b.example"]
        );
        assert_eq!(applied("CORS_ORIGIN", "").0.cors_origins, ["*"]);
    }
}
