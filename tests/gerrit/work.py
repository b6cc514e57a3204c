"""What people do in a Gerrit, by its REST API: every kind of event that its stream can show."""

from urllib.parse import quote

# All that can go wrong on the way from a comment to a reader: what JSON escapes, what HTML escapes, what is not
# ASCII, what some JSON parsers take for a newline, what is no single UTF-16 unit.
COMMENT = "Déjà vu: \"quoted\" 'single' \\back\\slash <b>bold</b> & = \t tab \u2028 line \u2029 paragraph \x7f 漢字 🔥 %2B +#"

PROJECTS = ["plain", "a/b/c", "libs/libstdc++", "c#lib", "with space", "größe/naïve", "tab\there", "+", "#", "deep/er+/c#"]


class Work:
    def __init__(self, gerrit):
        self.gerrit = gerrit
        self.count = 0
        self.rest = gerrit.rest

    def project(self, name):
        self.rest("PUT", f"projects/{quote(name, safe='')}", {"create_empty_commit": True})

    def account(self, name):
        self.rest("PUT", f"accounts/{name}", {"name": name.capitalize(), "email": f"{name}@example.com"})

    def branch(self, project, name):
        self.rest("PUT", f"projects/{quote(project, safe='')}/branches/{quote(name, safe='')}", {"revision": "HEAD"})

    def no_branch(self, project, name):
        self.rest("DELETE", f"projects/{quote(project, safe='')}/branches/{quote(name, safe='')}")

    def tag(self, project, name):
        self.rest("PUT", f"projects/{quote(project, safe='')}/tags/{quote(name, safe='')}", {"message": name})

    def head(self, project, branch):
        self.rest("PUT", f"projects/{quote(project, safe='')}/HEAD", {"ref": f"refs/heads/{branch}"})

    def change(self, project, subject):
        """A change with one patch set and a file; gives its number, by which the methods below know it."""
        self.count += 1
        made = self.rest("POST", "changes/", {"project": project, "branch": "master", "subject": subject})
        number = made["_number"]
        self.patch_set(number, f"file-{self.count}.txt", f"{subject}\n")
        return number

    def patch_set(self, number, file, text):
        self.rest("PUT", f"changes/{number}/edit/{quote(file, safe='')}", text=text)
        self.post(number, "edit:publish", {"notify": "NONE"})

    def post(self, number, what, data=None):
        return self.rest("POST", f"changes/{number}/{what}", data or {})

    def review(self, number, **review):
        return self.post(number, "revisions/current/review", review)

    def life_of_a_change(self, project):
        """From the first patch set to the merge, with what happens on the way."""
        number = self.change(project, f"Change of {project} with 'quotes' and <tags>")
        self.review(number, message=COMMENT)
        self.review(number, labels={"Code-Review": -1}, message="not yet")
        self.review(number, comments={"/COMMIT_MSG": [{"line": 1, "message": "inline " + COMMENT}]})
        self.patch_set(number, "größe.txt", f"{number}\n")
        self.review(number, reviewers=[{"reviewer": "alice"}, {"reviewer": "bob"}])
        self.post(number, "reviewers/bob/delete")
        self.rest("PUT", f"changes/{number}/topic", {"topic": "a topic+#/ü"})
        self.post(number, "hashtags", {"add": ["tag one", "zwei+#"]})
        self.post(number, "hashtags", {"remove": ["zwei+#"]})
        self.post(number, "wip", {"message": "wait"})
        self.post(number, "ready", {"message": "go"})
        self.post(number, "abandon", {"message": COMMENT})
        self.post(number, "restore", {"message": "again"})
        self.rest("PUT", f"changes/{number}/message", {"message": f"New words for {number}\n\nChange-Id: {self.id(number)}\n"})
        self.review(number, labels={"Code-Review": 1})
        self.post(number, "reviewers/self/votes/Code-Review/delete")
        self.review(number, labels={"Code-Review": 2})
        self.post(number, "submit")
        return number

    def id(self, number):
        return self.rest("GET", f"changes/{number}")["change_id"]

    def withdrawn(self, project):
        """A change that is hidden, shown again, abandoned and deleted."""
        number = self.change(project, "A private matter")
        self.post(number, "private")
        self.review(number, message="hidden")
        self.rest("DELETE", f"changes/{number}/private")
        self.review(number, message="x" * 12_000)
        self.post(number, "abandon")
        self.rest("DELETE", f"changes/{number}")

    def references(self, project):
        self.branch(project, "stable/1.0")
        self.tag(project, "v1.0")
        self.head(project, "stable/1.0")
        self.head(project, "master")
        self.no_branch(project, "stable/1.0")

    def day(self):
        """All of it, in all kinds of projects."""
        for name in ("alice", "bob"):
            self.account(name)
        for project in PROJECTS:
            self.project(project)
        for project in PROJECTS:
            self.life_of_a_change(project)
        for project in PROJECTS[:3]:
            self.withdrawn(project)
            self.references(project)
        reverted = self.life_of_a_change("plain")
        self.post(reverted, "revert", {"message": "Take it back"})
