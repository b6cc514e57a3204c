//! Who may do what: password files, access lists, identities. mosquitto's formats.
