//! Sources of events and the sink they publish to: Gerrit.
