"""python3 -m unittest discover tests/docs"""

import unittest

from blocks import Mistake, blocks, matches, steps


class Blocks(unittest.TestCase):
    def test_a_block_has_its_language_its_attributes_and_its_line(self):
        one, other = blocks("p.md", "a\n```sh norun='needs a Gerrit'\nls\n```\n\n~~~json\n{}\n```\n~~~\n")
        self.assertEqual((one.language, one.attributes, one.text), ("sh", {"norun": "needs a Gerrit"}, "ls\n"))
        self.assertEqual((one.place, other.text), ("p.md:2", "{}\n```\n"))

    def test_a_block_in_a_list_loses_its_indent(self):
        (one,) = blocks("p.md", "- a\n\n  ```sh\n  ls\n    -l\n  ```\n")
        self.assertEqual(one.text, "ls\n  -l\n")

    def test_what_the_test_would_pass_over_is_a_mistake(self):
        for text in ("```\nls\n```\n", "```shell\nls\n```\n", "```sh\nls\n", "```sh norun\n```\n", "```sh norun=\n```\n",
                     "```sh skip\n```\n"):
            with self.assertRaises(Mistake, msg=text):
                blocks("p.md", text)

    def test_what_runs_in_the_background_can_be_stopped_between_blocks(self):
        found = blocks("p.md", "```sh\n<!-- stop -->\n```\n<!-- stop -->\n")
        self.assertEqual([block.language for block in found], ["sh", "stop"])

    def test_a_console_block_is_commands_and_what_they_print(self):
        self.assertEqual(steps("$ a\n$ b \\\n> c\nout\nmore\n"), [["a", []], ["b \\\nc", ["out", "more"]]])
        with self.assertRaises(Mistake):
            steps("out\n")

    def test_an_ellipsis_stands_for_anything(self):
        self.assertTrue(matches(["a … c", "d"], ["a b c", "d"]))
        self.assertFalse(matches(["a … c"], ["a b c", "d"]))
        self.assertFalse(matches(["a", "b"], ["a"]))
        self.assertTrue(matches(["a", "…"], ["a", "b", "c"]))
        self.assertFalse(matches(["a.c"], ["abc"]))
