//! The names of events and their spellings (contract 1.1).
//!
//! An event has one wire name (`messages.upsert`), which is what travels in the envelope. Operators write
//! the config name (`MESSAGES_UPSERT`) in `events` lists, and URLs carry the by-events suffix
//! (`messages-upsert`). All three spell the same event; [`same_event`] compares them.

/// The config names that an `events` list may hold, in the order that an empty list expands to.
pub const LISTED: [&str; 31] = [
    "APPLICATION_STARTUP",
    "QRCODE_UPDATED",
    "MESSAGES_SET",
    "MESSAGES_UPSERT",
    "MESSAGES_EDITED",
    "MESSAGES_UPDATE",
    "MESSAGES_DELETE",
    "SEND_MESSAGE",
    "SEND_MESSAGE_UPDATE",
    "CONTACTS_SET",
    "CONTACTS_UPSERT",
    "CONTACTS_UPDATE",
    "PRESENCE_UPDATE",
    "CHATS_SET",
    "CHATS_UPSERT",
    "CHATS_UPDATE",
    "CHATS_DELETE",
    "GROUPS_UPSERT",
    "GROUP_UPDATE",
    "GROUP_PARTICIPANTS_UPDATE",
    "CONNECTION_UPDATE",
    "LABELS_EDIT",
    "LABELS_ASSOCIATION",
    "CALL",
    "TYPEBOT_START",
    "TYPEBOT_CHANGE_STATUS",
    "REMOVE_INSTANCE",
    "LOGOUT_INSTANCE",
    "INSTANCE_CREATE",
    "INSTANCE_DELETE",
    "STATUS_INSTANCE",
];

/// The config name of `groups.update`, which the original's list misspells as `GROUP_UPDATE`.
pub const GROUPS_UPDATE: &str = "GROUPS_UPDATE";

/// The wire names that Evolution knows, sorted.
pub const WIRE: [&str; 32] = [
    "application.startup",
    "call",
    "chats.delete",
    "chats.set",
    "chats.update",
    "chats.upsert",
    "connection.update",
    "contacts.set",
    "contacts.update",
    "contacts.upsert",
    "group-participants.update",
    "groups.update",
    "groups.upsert",
    "instance.create",
    "instance.delete",
    "labels.association",
    "labels.edit",
    "logout.instance",
    "messages.delete",
    "messages.edited",
    "messages.set",
    "messages.update",
    "messages.upsert",
    "messaging-history.set",
    "presence.update",
    "qrcode.updated",
    "remove.instance",
    "send.message",
    "send.message.update",
    "status.instance",
    "typebot.change-status",
    "typebot.start",
];

/// The config name of an event in any spelling: `messages.upsert` gives `MESSAGES_UPSERT`.
///
/// The alias is not resolved: `GROUP_UPDATE` stays as it is written.
pub fn config_name(name: &str) -> String {
    name.chars().map(fold).collect()
}

/// The suffix that by-events webhooks append to their URL: `group-participants-update`.
pub fn by_events_suffix(name: &str) -> String {
    name.chars()
        .map(|c| match fold(c) {
            '_' => '-',
            other => other.to_ascii_lowercase(),
        })
        .collect()
}

/// The wire name of an event in any spelling; `None` when Evolution has no such event.
pub fn wire_name(name: &str) -> Option<&'static str> {
    WIRE.into_iter().find(|wire| same_event(wire, name))
}

/// Whether two spellings name the same event, `GROUP_UPDATE` being `groups.update`. Does not allocate.
pub fn same_event(a: &str, b: &str) -> bool {
    folds_equal(canonical(a), canonical(b))
}

/// Folds a character of a spelling to the config form.
fn fold(c: char) -> char {
    match c {
        '.' | '-' => '_',
        other => other.to_ascii_uppercase(),
    }
}

fn folds_equal(a: &str, b: &str) -> bool {
    // Every folded character is one byte and stays one, so lengths and bytes decide.
    a.len() == b.len() && a.chars().map(fold).eq(b.chars().map(fold))
}

/// Resolves the one alias.
fn canonical(name: &str) -> &str {
    if folds_equal(name, "GROUP_UPDATE") {
        GROUPS_UPDATE
    } else {
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wire_name_has_a_config_name_and_a_suffix() {
        for (wire, config, suffix) in [
            ("messages.upsert", "MESSAGES_UPSERT", "messages-upsert"),
            (
                "group-participants.update",
                "GROUP_PARTICIPANTS_UPDATE",
                "group-participants-update",
            ),
            (
                "typebot.change-status",
                "TYPEBOT_CHANGE_STATUS",
                "typebot-change-status",
            ),
            ("call", "CALL", "call"),
        ] {
            assert_eq!(config_name(wire), config);
            assert_eq!(by_events_suffix(wire), suffix);
            assert_eq!(wire_name(config), Some(wire));
            assert_eq!(wire_name(suffix), Some(wire));
        }
        assert_eq!(wire_name("FOO"), None);
    }

    #[test]
    fn spellings_of_one_event_are_the_same() {
        for spelling in ["MESSAGES_UPSERT", "messages.upsert", "messages-upsert"] {
            assert!(same_event(spelling, "messages.upsert"));
            assert!(same_event("MESSAGES_UPSERT", spelling));
        }
        assert!(!same_event("messages.upsert", "messages.update"));
        assert!(!same_event("messages.upsert", "messages.upserts"));
        assert!(!same_event("", "call"));
    }

    #[test]
    fn group_update_is_an_alias_of_groups_update() {
        assert!(same_event("GROUP_UPDATE", "groups.update"));
        assert!(same_event("group.update", "GROUPS_UPDATE"));
        assert!(same_event("GROUP_UPDATE", "GROUP_UPDATE"));
        assert!(!same_event("GROUP_UPDATE", "groups.upsert"));
        assert_eq!(wire_name("GROUP_UPDATE"), Some("groups.update"));
    }

    #[test]
    fn every_listed_name_is_a_wire_name() {
        for listed in LISTED {
            assert!(wire_name(listed).is_some(), "{listed}");
        }
        assert!(WIRE.is_sorted());
        assert!(!LISTED.contains(&GROUPS_UPDATE));
    }
}
