"""The tray once more, slow and plain: it remembers all that ever happened, and works everything out anew each time."""

from __future__ import annotations

from pushactors.clients.tray_rules import LoggedIn, Marked, Put, Showed, Step, Told, TookBack


class TwinTray:
    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.rows: list[dict[str, object]] = []
        """Everything that was ever heard of, in the order in which it is drawn; `fate` says whether it is."""
        self.came: list[tuple[int, str, str | None]] = []
        """Who overrode what, and to whom it was addressed."""
        self.account: str | None = None
        self.owed: dict[str, str] = {}

    def take(self, step: Step) -> None:
        match step:
            case Put(entry):
                self.put(entry.msg_id, entry.override_msg_id, entry.alias)
            case Showed(msg_ids):
                for row in self.here():
                    if row["id"] in msg_ids:
                        row["shown"] = True
            case Marked(msg_id, mark):
                for row in self.here():
                    if row["id"] == msg_id:
                        row["fate"] = mark.value
                        self.owed[msg_id] = mark.value
            case Told(msg_ids):
                self.owed = {msg_id: mark for msg_id, mark in self.owed.items() if msg_id not in msg_ids}
            case TookBack(msg_id):
                known = [row for row in self.rows if row["id"] == msg_id]
                if not known:
                    self.rows.append({"id": msg_id, "fate": "recalled"})
                elif known[0]["fate"] not in ("opened", "dismissed"):
                    known[0]["fate"] = "recalled"
            case LoggedIn(alias):
                self.account = alias
                for row in self.here():
                    if row["alias"] not in (None, alias):
                        if row["shown"]:
                            row["fate"] = "gone"
                        else:
                            self.rows.remove(row)

    def put(self, msg_id: str, override: str | None, alias: str | None) -> None:
        if self.fate(msg_id) is not None:
            return
        late = any(
            by > int(msg_id) and what in (msg_id, override) and whose in (None, alias or self.account)
            for by, what, whose in self.came
        )
        if override is not None:
            self.came.append((int(msg_id), override, alias))
        row: dict[str, object] = {
            "id": msg_id,
            "override": override,
            "alias": alias,
            "shown": False,
            "place": msg_id,
            "fate": "gone" if late else "here",
        }
        old = [other for other in self.here() if override is not None and override in (other["id"], other["override"])]
        if late or not old:
            self.rows.append(row)
        else:
            row["place"] = old[0]["place"]
            self.rows.insert(self.rows.index(old[0]), row)
            for other in old:
                other["fate"] = "gone"
        while len(self.here()) > self.limit:
            min(self.here(), key=lambda other: int(str(other["id"])))["fate"] = "gone"

    def here(self) -> list[dict[str, object]]:
        return [row for row in self.rows if row["fate"] == "here"]

    def fate(self, msg_id: str) -> str | None:
        return next((str(row["fate"]) for row in self.rows if row["id"] == msg_id), None)

    def drawn(self) -> list[tuple[object, object, object]]:
        return [(row["id"], row["place"], row["shown"]) for row in self.here()]
