//! Where a flush has to stop, although the client would take more.

use firehose_mqtt::QoS;

/// How far the queue may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// As far as the window and the socket allow.
    Open,
    /// Up to the first QoS 2 message: that is saved before it leaves.
    BeforeExactlyOnce,
    /// Not at all: something else goes before.
    Shut,
}

impl Gate {
    /// Whether a message of this QoS has to wait.
    pub(crate) fn stops(self, qos: QoS) -> bool {
        self == Gate::Shut || (self == Gate::BeforeExactlyOnce && qos == QoS::ExactlyOnce)
    }
}
