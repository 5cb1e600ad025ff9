//! Sends an event to the channel of the team that looks after the chat's country: `/brazil`, `/portugal`.
//!
//! ```toml
//! [sinks.clients]
//! type = "channels"
//! inputs = ["in"]
//! policy = { type = "by_phone", teams = { "55" = "brazil", "351" = "portugal" }, others = "world" }
//! ```

use std::collections::BTreeMap;

use evows::config::Problem;
use evows::hub::ChannelName;
use evows::plugin::{BuildContext, BuildError, Instances, Policy, PolicyPlugin};
use evows::schemars::JsonSchema;
use evows::serde::Deserialize;
use evows::serde_json::Value;
use evows::{Event, register_policy};

/// Its keys.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(crate = "evows::serde", deny_unknown_fields)]
#[schemars(crate = "evows::schemars")]
struct Config {
    /// How a phone number begins, and the team that gets its events. The longest beginning counts.
    teams: BTreeMap<String, String>,
    /// The team that gets everything else; without it, nobody does.
    others: Option<String>,
}

/// The policy.
struct ByPhone {
    /// The longest beginnings first.
    teams: Vec<(String, ChannelName)>,
    others: Option<ChannelName>,
}

register_policy!(
    ByPhone,
    summary = "Sends an event to a team by the chat's phone number.",
    example = "teams = { \"55\" = \"brazil\", \"351\" = \"portugal\" }\nothers = \"world\"\n",
);

impl PolicyPlugin for ByPhone {
    const NAME: &'static str = "by_phone";
    type Config = Config;

    fn check(config: &Config) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (beginning, team) in &config.teams {
            let key = format!("teams.{beginning}");
            if beginning.is_empty() || !beginning.bytes().all(|byte| byte.is_ascii_digit()) {
                let message = format!("`{beginning}` is not how a phone number begins");
                let problem = Problem::new("invalid-value", message).at_key("teams");
                problems.push(problem.help("write digits alone, such as \"55\""));
            }
            problems.extend(wrong_team(team).map(|problem| problem.at_key(&key)));
        }
        let others = config.others.as_deref().and_then(wrong_team);
        problems.extend(others.map(|problem| problem.at_key("others")));
        problems
    }

    fn build(config: Config, _cx: &BuildContext) -> Result<Self, BuildError> {
        let channel = |team: String| {
            let name = ChannelName::of_instance(&team);
            name.map_err(|error| BuildError::new(format!("the team `{team}`: {error}")))
        };
        let teams = config.teams.into_iter();
        let teams = teams.map(|(beginning, team)| Ok((beginning, channel(team)?)));
        let mut teams: Vec<_> = teams.collect::<Result<_, BuildError>>()?;
        teams.sort_by_key(|(beginning, _)| std::cmp::Reverse(beginning.len()));
        Ok(Self {
            teams,
            others: config.others.map(channel).transpose()?,
        })
    }
}

impl Policy for ByPhone {
    fn route(&self, event: &Event, _instances: &dyn Instances, channels: &mut Vec<ChannelName>) {
        let phone = phone(event).unwrap_or_default();
        let team = self
            .teams
            .iter()
            .find(|(beginning, _)| phone.starts_with(beginning.as_str()));
        channels.extend(
            team.map(|(_, channel)| channel)
                .or(self.others.as_ref())
                .cloned(),
        );
    }

    fn opens(&self, channel: &ChannelName, _instances: &dyn Instances) -> bool {
        let teams = self.teams.iter().map(|(_, team)| team);
        teams.chain(&self.others).any(|team| team == channel)
    }
}

fn wrong_team(team: &str) -> Option<Problem> {
    let error = ChannelName::of_instance(team).err()?;
    let problem = Problem::new(
        "invalid-value",
        format!("no channel can be named after `{team}`: {error}"),
    );
    Some(problem.help("write a plain name, such as \"brazil\""))
}

/// The phone number of the chat that an event is about. Groups, and contacts that hide theirs, have none.
fn phone(event: &Event) -> Option<&str> {
    let data = event.document().get("data")?;
    let places = ["/key/remoteJidAlt", "/key/remoteJid", "/remoteJid", "/id"];
    let ids = places
        .iter()
        .filter_map(|place| data.pointer(place)?.as_str());
    ids.into_iter()
        .find_map(|id| id.strip_suffix("@s.whatsapp.net"))
        .or_else(|| data.get("number").and_then(Value::as_str))
}

#[cfg(test)]
mod tests {
    use evows::testing::{PolicyHarness, event};

    use super::*;

    const KEYS: &str = "teams = { 55 = 'brazil', 5511 = 'paulo', 351 = 'portugal' }";

    fn about(id: &str) -> Event {
        let data = format!(r#"{{"key":{{"remoteJid":"{id}"}}}}"#);
        event(&format!(
            r#"{{"event":"messages.upsert","instance":"i","data":{data}}}"#
        ))
    }

    #[test]
    fn the_longest_beginning_counts() {
        let policy = PolicyHarness::from_toml::<ByPhone>(KEYS);
        for (id, channels) in [
            ("5521988887777@s.whatsapp.net", &["/brazil"][..]),
            ("5511988887777@s.whatsapp.net", &["/paulo"]),
            ("351911111111@s.whatsapp.net", &["/portugal"]),
            ("123@s.whatsapp.net", &[]),
            ("5511988887777-123@g.us", &[]),
        ] {
            assert_eq!(policy.channels(&about(id)), channels, "{id}");
        }
    }

    #[test]
    fn others_have_a_team_where_there_is_one() {
        let policy = PolicyHarness::from_toml::<ByPhone>("teams = {}\nothers = 'world'");
        assert_eq!(policy.channels(&about("1@lid")), ["/world"]);
        assert!(policy.opens("/world") && !policy.opens("/"));
    }

    #[test]
    fn says_what_is_wrong() {
        let problems = PolicyHarness::problems::<ByPhone>("teams = { '+55' = 'a/b' }");
        assert!(problems.contains("`+55` is not how"), "{problems}");
        assert!(problems.contains("after `a/b`"), "{problems}");
    }
}
