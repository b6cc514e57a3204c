//! The world of a test: shards, sequencer, log, clock, wires.

use crate::client::{self, Got, take_packets};
pub use crate::setup::Setup;
use crate::setup::access;
use crate::state::StateSide;
use crate::wire::Client;
use firehose_auth::{Access, Identity};
use firehose_broker::arrival::{Arrival, Scope, home_shard};
use firehose_broker::fetched::FetchedEvents;
use firehose_broker::kept::KeptBytes;
use firehose_broker::message::Message;
use firehose_broker::replays::Replays;
use firehose_broker::sequencer::{Durability, Sequencer};
use firehose_broker::shard::{Action, Appetite, Now, Shard, Shared};
use firehose_broker::stats::ShardStats;
use firehose_broker::sys::LatestSys;
use firehose_log::{Chunk, Commit, LogConfig, MemDisk, Offset, Read, Wait, open};
use firehose_mqtt::{Packet, PacketKind, Property, Reason, SubscribeOptions, Version};
use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

/// A time in 2026, µs.
pub const START_US: i64 = 1_795_406_400_000_000;

thread_local! {
    static WALL_US: Cell<i64> = const { Cell::new(START_US) };
}

fn wall_us() -> i64 {
    WALL_US.get()
}

struct Host {
    shard: Shard,
    stats: Arc<ShardStats>,
    clients: HashMap<u32, usize>,
}

/// See the module.
pub struct World {
    pub sequencer: Sequencer,
    pub read: Arc<dyn Read>,
    pub commit: Box<dyn Commit>,
    pub disk: MemDisk,
    pub access: Access,
    pub now: Now,
    pub clients: Vec<Client>,
    /// Questions to the log that wait until the test has them answered.
    pub questions: VecDeque<(usize, Action)>,
    /// Whether turns of the section's thread, while it has the section, are taken along.
    pub has_section_thread: bool,
    /// Whether questions wait.
    pub delays_reads: bool,
    /// The last values of `$SYS`.
    pub sys: Arc<LatestSys>,
    pub kept: Arc<KeptBytes>,
    pub state: StateSide,
    pub setup: Setup,
    hosts: Vec<Host>,
    folder: tempfile::TempDir,
}

impl World {
    pub fn new(setup: Setup) -> World {
        World::on(MemDisk::new(), Now { ms: 1_000_000, wall_us: START_US }, setup)
    }

    /// On what a disk has.
    pub fn on(disk: MemDisk, now: Now, setup: Setup) -> World {
        WALL_US.set(now.wall_us);
        let config = LogConfig {
            segment_bytes: setup.segment_bytes,
            tail_bytes: setup.tail_bytes,
            retention_bytes: setup.retention_bytes,
            disk_reserve_bytes: setup.disk_reserve_bytes,
            disk_check_secs: setup.disk_check_secs,
            ..LogConfig::new("/log")
        };
        let log = open(config, Arc::new(disk.clone()), now.wall_us).expect("opens");
        let folder = tempfile::tempdir().expect("a folder");
        let access = access(&setup, &folder);
        let (durability, bytes_max) = (setup.durability, setup.limits.mailbox_bytes_max);
        let sequencer = Sequencer::new(setup.shards, log.append, durability, setup.role, bytes_max, wall_us);
        let limits = Arc::new(setup.limits.clone());
        let state = StateSide::open(&disk, log.read.clone(), limits.clone(), now);
        sequencer.set_state(state.state.queue().clone());
        let shared = Shared {
            replays: Arc::new(Replays::new(&limits)),
            kept: Arc::new(KeptBytes::new(&limits)),
            limits,
            access: access.clone(),
            unlogged: setup.unlogged.clone().into(),
            secret: state.state.secret().clone(),
            sys: Arc::default(),
            stored: state.state.names().clone(),
            groups: state.state.group_names().clone(),
            shards: setup.shards,
            connecting_bytes: Arc::default(),
            log_id: log.read.log_id(),
            epoch: log.read.epoch(),
            recovered: log.read.cursor(log.read.head(), now.wall_us),
            acks_wait_for_sync: setup.durability == Durability::Sync,
        };
        let host = |number| {
            let stats = Arc::<ShardStats>::default();
            Host {
                shard: Shard::new(shared.clone(), number, sequencer.head(), stats.clone()),
                stats,
                clients: HashMap::new(),
            }
        };
        let hosts = (0..setup.shards).map(host).collect();
        World {
            sequencer,
            read: log.read,
            commit: log.commit,
            disk,
            access,
            now,
            clients: Vec::new(),
            questions: VecDeque::new(),
            has_section_thread: true,
            delays_reads: false,
            sys: shared.sys,
            kept: shared.kept,
            state,
            setup,
            hosts,
            folder,
        }
    }

    /// With everything as it is by default: `anonymous = "full"`, durability `os`, one shard.
    pub fn open() -> World {
        World::new(Setup::default())
    }

    pub fn shard(&mut self, number: usize) -> &mut Shard {
        &mut self.hosts[number].shard
    }

    pub fn stats(&self, number: usize) -> &ShardStats {
        &self.hosts[number].stats
    }

    /// Replaces the ACL file's lines and reloads.
    pub fn reload_acl(&mut self, lines: &str) {
        std::fs::write(self.folder.path().join("acl"), lines).expect("written");
        self.access.reload().expect("reloads");
        for shard in 0..self.hosts.len() {
            self.sequencer.send(shard, Message::Reload);
        }
        self.settle();
    }

    /// Takes a user away and reloads.
    pub fn remove_user(&mut self, user: &str) {
        let path = self.folder.path().join("passwd");
        let mut file = firehose_auth::PasswordFile::read(&path).expect("loads");
        file.delete(user);
        file.write(&path).expect("written");
        self.access.reload().expect("reloads");
        for shard in 0..self.hosts.len() {
            self.sequencer.send(shard, Message::Reload);
        }
        self.settle();
    }

    /// A client whose CONNECT is done, and its CONNACK looked at.
    pub fn client(&mut self, version: Version, name: &str) -> usize {
        self.client_with(version, name, &[])
    }

    pub fn client_with(&mut self, version: Version, name: &str, properties: &[Property<'_>]) -> usize {
        let packet = client::connect_packet(version, name, properties);
        let number = self.arrive(packet, Identity::anonymous(), name, None);
        self.settle();
        let connack = self.take(number);
        assert_eq!((connack[0].kind, connack[0].reason()), (PacketKind::ConnAck, Reason::Success));
        number
    }

    pub fn user(&mut self, version: Version, user: &str) -> usize {
        let packet = client::connect_packet(version, user, &[]);
        let number = self.arrive(packet, Identity::user(user), user, None);
        self.settle();
        assert_eq!(self.take(number)[0].reason(), Reason::Success);
        number
    }

    /// What the lobby passes on: the CONNECT as it came, and who it is.
    pub fn arrive(
        &mut self,
        input: Vec<u8>,
        identity: Identity,
        client_id: &str,
        address: Option<IpAddr>,
    ) -> usize {
        let number = self.clients.len();
        // The lobby knows ids that it drew.
        let assigned = client_id.starts_with("auto-");
        let scope = Scope::of(&identity, address, assigned);
        let host = home_shard(scope.hash_with(self.state.state.secret(), client_id), self.hosts.len());
        let (connect, _) =
            firehose_mqtt::decode_connect(&input, usize::MAX).expect("a CONNECT").expect("whole");
        let version = connect.version;
        self.clients.push(Client::new(version, host));
        let socket: Option<Box<dyn std::any::Any + Send>> = Some(Box::new(number));
        let client_id = client_id.into();
        let arrival = Arrival { input, identity, client_id, assigned, address, socket };
        self.sequencer.send(host, Message::Arrival(Box::new(arrival)));
        number
    }

    /// Bytes from a client, read at once if it is read at all.
    pub fn send(&mut self, client: usize, bytes: &[u8]) {
        self.clients[client].to_read.extend_from_slice(bytes);
        self.read_wire(client);
    }

    pub fn send_packet(&mut self, client: usize, packet: &Packet<'_>) {
        let bytes = client::bytes_of(packet, self.clients[client].version);
        self.send(client, &bytes);
    }

    pub fn publish(&mut self, client: usize, topic: &str, payload: &str, qos: u8, packet_id: u16) {
        let packet_id = if qos == 0 { 0 } else { packet_id };
        self.send_packet(client, &Packet::Publish(client::publish(topic, payload, qos, packet_id)));
    }

    pub fn subscribe(&mut self, client: usize, filters: &[(&str, SubscribeOptions)], list: &[Property<'_>]) {
        let bytes = client::subscribe_packet(self.clients[client].version, 9, filters, list);
        self.send(client, &bytes);
    }

    /// Subscribes to one filter, and gives its reason code.
    pub fn subscribed(&mut self, client: usize, filter: &str, qos: u8) -> Reason {
        self.subscribe(client, &[(filter, client::options(qos))], &[]);
        self.settle();
        let place = self.clients[client].packets.iter().position(|it| it.kind == PacketKind::SubAck);
        let suback = self.clients[client].packets.remove(place.expect("a SUBACK"));
        suback.reason()
    }

    pub fn hang_up(&mut self, client: usize) {
        self.cut(client);
        self.settle();
    }

    /// The same, without a turn of any shard.
    pub fn cut(&mut self, client: usize) {
        let Client { host, session, .. } = self.clients[client];
        if let Some(session) = session {
            self.hosts[host].shard.hang_up(session, "the test closed the wire");
        }
    }

    /// Lets the wire take so many bytes more.
    pub fn drain_wire(&mut self, client: usize, bytes: usize) {
        let Client { host, session, .. } = self.clients[client];
        self.clients[client].room = self.clients[client].room.saturating_add(bytes);
        if let Some(session) = session {
            self.hosts[host].shard.writable(session);
        }
    }

    /// The packets that the client got since this was last asked.
    pub fn take(&mut self, client: usize) -> Vec<Got> {
        self.settle();
        std::mem::take(&mut self.clients[client].packets)
    }

    /// The same, without a turn of any shard.
    pub fn heard(&mut self, client: usize) -> Vec<Got> {
        std::mem::take(&mut self.clients[client].packets)
    }

    /// The payloads of the PUBLISHes that the client got since it was last asked; nothing else may have come.
    pub fn payloads(&mut self, client: usize) -> Vec<String> {
        let got = self.take(client);
        assert!(got.iter().all(|it| it.kind == PacketKind::Publish), "{got:?}");
        got.into_iter().map(|it| it.payload).collect()
    }

    /// Time passes, and every shard looks at its timers, once a second as a running one does.
    pub fn pass(&mut self, ms: u64) {
        for step in std::iter::repeat_n(1000, (ms / 1000) as usize).chain([ms % 1000]) {
            self.pass_time(step);
            for host in &mut self.hosts {
                host.shard.set_now(self.now);
                host.shard.tick();
            }
        }
        self.settle();
    }

    fn pass_time(&mut self, ms: u64) {
        self.now.ms += ms;
        self.now.wall_us += ms as i64 * 1000;
        WALL_US.set(self.now.wall_us);
    }

    /// The commit thread's turn.
    pub fn commit(&mut self) -> Offset {
        let durable = self.commit.commit().expect("commits");
        self.sequencer.set_durable(durable);
        durable
    }

    /// Until every shard is quiet (questions that wait are left alone).
    pub fn settle(&mut self) {
        for _ in 0..100_000 {
            let mut quiet = true;
            for host in 0..self.hosts.len() {
                quiet &= !self.exchange(host);
                quiet &= !self.flush(host);
            }
            if quiet && !self.turn_of_state() {
                return;
            }
        }
        panic!("the shards never come to rest");
    }

    /// One round of deposits, messages and actions; false: there was nothing.
    pub fn exchange(&mut self, host: usize) -> bool {
        let it = &mut self.hosts[host];
        it.shard.set_now(self.now);
        let mut worked = it.shard.go_on_with_filters();
        if let Some(outgoing) = it.shard.take_outgoing() {
            worked = true;
            if let Some(interest) = outgoing.interest {
                self.sequencer.set_interest(host, interest);
            }
            self.sequencer.deposit(host, outgoing.deposits);
        }
        if self.sequencer.thread_has_section() && self.has_section_thread {
            // A write took long, as it may on a busy machine, and nobody else plays the section's thread here.
            self.sequencer.run_section();
        }
        let mut messages = Vec::new();
        self.sequencer.mailbox(host).take(&mut messages);
        worked |= !messages.is_empty();
        let batch_bytes = |message: &Message| match message {
            Message::Batch { batch, .. } => batch.bytes_len(),
            _ => 0,
        };
        let bytes = messages.iter().map(batch_bytes).sum();
        it.shard.drain(&mut messages);
        self.sequencer.drained(host, bytes);
        let actions: Vec<Action> = it.shard.take_actions().collect();
        worked |= !actions.is_empty();
        for action in actions {
            self.act(host, action);
        }
        worked
    }

    /// Flushes every connection that has something to write; false: there was none.
    pub fn flush(&mut self, host: usize) -> bool {
        let count = self.hosts[host].shard.dirty_count();
        for _ in 0..count {
            let Some(session) = self.hosts[host].shard.next_dirty() else { break };
            let Some(client) = self.hosts[host].clients.get(&session).copied() else {
                self.hosts[host].shard.hang_up(session, "it has no wire");
                continue;
            };
            self.hosts[host].shard.flush(session, &mut self.clients[client]);
            self.look_at(client);
        }
        count > 0
    }

    /// Answers the question that waits at a place in line.
    pub fn answer(&mut self, place: usize) {
        let Some((host, question)) = self.questions.remove(place) else { return };
        let message = match question {
            Action::Read { lane, from, upto, bytes_max } => {
                Message::Read { lane, chunk: self.read.read(from, upto, bytes_max, Wait::Yes) }
            }
            Action::Resolve { token, since } => {
                Message::Resolved { token, start: self.read.resolve(&since, self.now.wall_us) }
            }
            Action::Fetch { session, offsets } => {
                Message::Fetched { session, events: FetchedEvents::read(&*self.read, &offsets) }
            }
            question @ Action::Retained { .. } => return self.state.ask(host, question),
            _ => unreachable!("only questions wait"),
        };
        self.sequencer.send(host, message);
    }

    fn act(&mut self, host: usize, action: Action) {
        match action {
            Action::Attach { session, socket } => {
                let client = *socket.and_then(|it| it.downcast::<usize>().ok()).expect("its wire");
                self.clients[client].session = Some(session);
                self.hosts[host].clients.insert(session, client);
            }
            Action::Close { session, .. } => {
                if let Some(client) = self.hosts[host].clients.remove(&session) {
                    self.clients[client].closed = true;
                    self.clients[client].session = None;
                }
            }
            question @ (Action::Read { .. }
            | Action::Resolve { .. }
            | Action::Retained { .. }
            | Action::Fetch { .. })
                if self.delays_reads =>
            {
                self.questions.push_back((host, question));
            }
            Action::Read { lane, from, upto, bytes_max } => {
                match self.read.read(from, upto, bytes_max, Wait::No) {
                    Ok(Chunk::Blocked) => {
                        let question = Action::Read { lane, from, upto, bytes_max };
                        self.questions.push_back((host, question));
                        self.answer(self.questions.len() - 1);
                    }
                    chunk => self.hosts[host].shard.answer(lane, chunk),
                }
            }
            question @ (Action::Resolve { .. } | Action::Retained { .. } | Action::Fetch { .. }) => {
                self.questions.push_back((host, question));
                self.answer(self.questions.len() - 1);
            }
            Action::ToShard { shard, message } => drop(self.sequencer.send(shard, message)),
            Action::State(request) => {
                self.state.state.queue().submit(host, request, self.sequencer.head());
            }
            Action::Resume { session } => {
                let appetite = self.hosts[host].shard.resume(session);
                if let Some(client) = self.hosts[host].clients.get(&session).copied() {
                    self.clients[client].paused = appetite == Appetite::Paused;
                    self.read_wire(client);
                }
            }
        }
    }

    fn read_wire(&mut self, client: usize) {
        let it = &mut self.clients[client];
        let Some(session) = it.session.filter(|_| !it.paused && !it.to_read.is_empty()) else { return };
        let bytes = std::mem::take(&mut it.to_read);
        let appetite = self.hosts[it.host].shard.receive(session, &bytes);
        it.paused = appetite == Appetite::Paused;
    }

    /// Decodes what a wire carried, and acknowledges it if the client does so.
    fn look_at(&mut self, client: usize) {
        let it = &mut self.clients[client];
        let (version, acknowledges) = (it.version, it.acknowledges);
        let packets = take_packets(&mut it.received, version);
        for packet in packets {
            let reply = match (packet.kind, packet.qos) {
                _ if !acknowledges => None,
                (PacketKind::Publish, 1) => Some(client::ack(Packet::PubAck, packet.id, version)),
                (PacketKind::Publish, 2) => Some(client::ack(Packet::PubRec, packet.id, version)),
                (PacketKind::PubRec, _) => Some(client::ack(Packet::PubRel, packet.id, version)),
                (PacketKind::PubRel, _) => Some(client::ack(Packet::PubComp, packet.id, version)),
                _ => None,
            };
            let it = &mut self.clients[client];
            it.packets.push(packet);
            it.acks.extend(reply);
        }
        if !self.clients[client].holds_acks {
            self.release_acks(client, usize::MAX);
        }
    }

    /// Sends so many of the acknowledgements that were kept back.
    pub fn release_acks(&mut self, client: usize, count: usize) {
        let waiting = &mut self.clients[client].acks;
        let bytes: Vec<u8> = waiting.drain(..count.min(waiting.len())).flatten().collect();
        if !bytes.is_empty() {
            self.send(client, &bytes);
        }
    }

    /// Every wire takes everything, every acknowledgement goes, every question is answered, until nothing moves.
    pub fn let_go(&mut self) {
        for client in 0..self.clients.len() {
            self.clients[client].holds_acks = false;
            self.release_acks(client, usize::MAX);
            self.drain_wire(client, usize::MAX);
        }
        self.settle();
        while !self.questions.is_empty() {
            self.answer(0);
            self.settle();
        }
    }
}
