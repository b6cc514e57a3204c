"""python3 -m unittest discover tests/kill: the kill test sees what it is there to see."""

import random
import unittest

from client import Failed, message_key, payload
from keeper import Keeper
from mortal import NEVER, ONCE, Mortal
from publisher import Publisher
from reader import matches
from sequence import Sequence


def sequence(*keys):
    made = Sequence("reader")
    made.extend(keys)
    return made


def publisher(qos=1, persistent=True):
    return Publisher("p", 4, qos, persistent, random.Random(1))


class Sequences(unittest.TestCase):
    def see(self, made, connection, keys):
        for key in keys:
            made.see(connection, key)

    def test_all_in_order_is_complete(self):
        made = sequence(*"abc")
        self.see(made, 1, "abc")
        made.check_complete()

    def test_a_missing_event_is_seen_at_the_next_one(self):
        made = sequence(*"abc")
        made.see(1, "a")
        self.assertRaises(Failed, made.see, 1, "c")

    def test_a_missing_last_event_is_seen_at_the_end(self):
        made = sequence(*"abc")
        self.see(made, 1, "ab")
        self.assertRaises(Failed, made.check_complete)

    def test_what_was_in_flight_comes_again_on_the_next_connection_only(self):
        made = sequence(*"abcd")
        self.see(made, 1, "abc")
        self.see(made, 2, "bcd")
        made.check_complete()
        self.assertRaises(Failed, made.see, 2, "d")

    def test_holes_in_what_comes_again_were_acknowledged(self):
        made = sequence(*"abcde")
        self.see(made, 1, "abcd")
        self.see(made, 2, "ace")
        made.check_complete()

    def test_order_holds_for_what_comes_again(self):
        made = sequence(*"abc")
        self.see(made, 1, "abc")
        made.see(2, "b")
        self.assertRaises(Failed, made.see, 2, "a")

    def test_an_event_that_is_not_in_the_history_is_seen(self):
        self.assertRaises(Failed, sequence("a").see, 1, "b")

    def test_an_event_stored_twice_may_be_either(self):
        # The second `a` comes again after a break; then `c` is next, not missing.
        made = sequence(*"abac")
        self.see(made, 1, "aba")
        self.see(made, 2, "ac")
        made.check_complete()


class Publishers(unittest.TestCase):
    def test_a_lost_acknowledged_message_is_seen(self):
        one = publisher()
        one.acknowledged = {1, 2}
        one.stored([1])
        self.assertRaises(Failed, one.check)

    def test_a_hole_is_seen(self):
        one = publisher()
        one.sent = [1, 2, 3]
        one.stored([1, 3])
        self.assertRaises(Failed, one.check)

    def test_disorder_is_seen(self):
        self.assertRaises(Failed, publisher().stored, [2, 1])

    def test_twice_is_right_for_qos_1_if_it_was_sent_again(self):
        one = publisher()
        one.resent = {1: 1}
        self.assertEqual(one.stored([1, 2, 1]), 1)
        self.assertRaises(Failed, one.stored, [2])

    def test_twice_is_never_right_for_qos_2(self):
        one = publisher(qos=2)
        one.resent = {1: 1}
        self.assertRaises(Failed, one.stored, [1, 1])


class Others(unittest.TestCase):
    def test_numbers_of_clearings_are_found(self):
        keeper, kept = Keeper("k", 4, 1, random.Random(1)), {}
        topic = "k/retained/3"
        events = [(topic, ("k", 3)), (topic, ("k", 23)), (topic, (topic, 0)), (topic, (topic, 0)), (topic, ("k", 63))]
        self.assertEqual(keeper.numbers(events[:3], kept), [3, 23, 43])
        self.assertEqual(keeper.numbers(events[3:], kept), [43, 63])

    def test_wills_twice_or_of_clients_that_left_are_seen(self):
        mortal = Mortal("leaves", 4, 1, random.Random(1))
        mortal.fates = {1: ONCE, 2: NEVER}
        self.assertEqual(mortal.due(), [1])
        mortal.stored([1])
        mortal.check()
        self.assertEqual(mortal.due(), [])
        self.assertRaises(Failed, mortal.stored, [1])
        mortal.stored([2])
        self.assertRaises(Failed, mortal.check)

    def test_a_payload_that_changed_is_seen(self):
        body = payload("p/stream", "p", 47)
        self.assertEqual(message_key("p/stream", body), ("p", 47))
        self.assertRaises(Failed, message_key, "p/other", body)
        self.assertRaises(Failed, message_key, "p/stream", body.replace(b"xx", b"xy", 1))

    def test_filters(self):
        self.assertTrue(matches("+/stream", "p/stream"))
        self.assertTrue(matches("$replay/earliest/+/stream", "p/stream"))
        self.assertTrue(matches("p/#", "p/retained/3"))
        self.assertFalse(matches("p/#", "q/stream"))
        self.assertFalse(matches("+/stream", "p/retained/3"))


if __name__ == "__main__":
    unittest.main()
