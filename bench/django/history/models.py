"""The tables of the benchmark as a Django project would have them, all tracked by pghistory: a copy of the row at each INSERT, UPDATE and DELETE."""

import pghistory
from django.db import models


class Char(models.CharField):
    """char(n), which Django has no field for."""

    def db_type(self, connection):
        return "char(%d)" % self.max_length


class Timestamp(models.DateTimeField):
    """timestamp without time zone."""

    def db_type(self, connection):
        return "timestamp"


def tracked(name, table, columns, **options):
    """A model of a table that is there already, so that Django makes only what pghistory needs beside it."""
    meta = type("Meta", (), {"managed": False, "db_table": table})
    model = type(name, (models.Model,), {"__module__": __name__, "Meta": meta, **columns})
    return pghistory.track(pghistory.InsertEvent(), pghistory.UpdateEvent(), pghistory.DeleteEvent(), **options)(model)


Branch = tracked("Branch", "pgbench_branches", {
    "bid": models.IntegerField(primary_key=True),
    "bbalance": models.IntegerField(null=True),
    "filler": Char(max_length=88, null=True),
})
Teller = tracked("Teller", "pgbench_tellers", {
    "tid": models.IntegerField(primary_key=True),
    "bid": models.IntegerField(null=True),
    "tbalance": models.IntegerField(null=True),
    "filler": Char(max_length=84, null=True),
})
Account = tracked("Account", "pgbench_accounts", {
    "aid": models.IntegerField(primary_key=True),
    "bid": models.IntegerField(null=True),
    "abalance": models.IntegerField(null=True),
    "filler": Char(max_length=84, null=True),
})
# The table has no key. Django wants one named, and uses it for the reference to the row, which is left out here.
History = tracked("History", "pgbench_history", {
    "tid": models.IntegerField(primary_key=True),
    "bid": models.IntegerField(null=True),
    "aid": models.IntegerField(null=True),
    "delta": models.IntegerField(null=True),
    "mtime": Timestamp(null=True),
    "filler": Char(max_length=22, null=True),
}, obj_field=None)
Purchase = tracked("Purchase", "purchase", {
    "id": models.BigIntegerField(primary_key=True),
    "customer": models.IntegerField(),
    "status": models.TextField(),
    "amount": models.DecimalField(max_digits=12, decimal_places=2),
    "items": models.IntegerField(),
    "note": models.TextField(null=True),
    "created_at": models.DateTimeField(),
    "updated_at": models.DateTimeField(),
})
# pghistory calls the events of Purchase PurchaseEvent.
PurchaseEntry = tracked("PurchaseEntry", "purchase_event", {
    "id": models.BigAutoField(primary_key=True),
    "purchase_id": models.BigIntegerField(),
    "kind": models.TextField(),
    "amount": models.DecimalField(max_digits=12, decimal_places=2),
    "at": models.DateTimeField(),
})
Customer = tracked("Customer", "customer", {"id": models.BigIntegerField(primary_key=True)} | {
    "%s_%d" % (name, i): field(null=True, **options)
    for i in (1, 2, 3)
    for name, field, options in (
        ("number", models.IntegerField, {}),
        ("account", models.BigIntegerField, {}),
        ("remark", models.TextField, {}),
        ("name", models.CharField, {"max_length": 40}),
        ("amount", models.DecimalField, {"max_digits": 12, "decimal_places": 2}),
        ("seen_at", models.DateTimeField, {}),
        ("born", models.DateField, {}),
        ("active", models.BooleanField, {}),
        ("token", models.UUIDField, {}),
        ("settings", models.JSONField, {}),
        ("score", models.FloatField, {}),
        ("level", models.SmallIntegerField, {}),
        ("address", models.GenericIPAddressField, {}),
    )
})


def measurement():
    return {
        "id": models.BigIntegerField(primary_key=True),
        "sensor": models.IntegerField(),
        "at": models.DateTimeField(),
        "value": models.FloatField(),
        "note": models.TextField(null=True),
    }


Measurement = tracked("Measurement", "measurement", measurement())
MeasurementImport = tracked("MeasurementImport", "measurement_import", measurement())
