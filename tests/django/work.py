"""What a service and its people do: python work.py 1|2, with the models of that release."""

import os
import sys
from datetime import date, timedelta
from decimal import Decimal

os.environ["SHOP_RELEASE"] = sys.argv[1]
os.environ["DJANGO_SETTINGS_MODULE"] = "project.settings"

import django  # noqa: E402

django.setup()

from django.contrib.auth.models import User  # noqa: E402
from django.db import IntegrityError, transaction  # noqa: E402
from django.db.models import F  # noqa: E402
from django.test import Client  # noqa: E402

from shop import models  # noqa: E402


def expect(condition, what):
    if not condition:
        raise SystemExit("failed: " + what)


def first():
    ann = models.Customer.objects.create(name="Ann", email="ann@example.com", profile={"tier": 1, "tags": ["é", None]})
    bob, _ = models.Customer.objects.update_or_create(email="bob@example.com", defaults={"name": "Bob"})
    models.Customer.objects.update_or_create(email="bob@example.com", defaults={"name": "Bobby", "profile": {"a": [1.5]}})
    models.Customer.objects.bulk_create(
        models.Customer(name="Customer %d" % n, email="c%d@example.com" % n) for n in range(200)
    )
    tags = models.Tag.objects.bulk_create([models.Tag(name=name) for name in ("new", "sale", "old")])
    products = models.Product.objects.bulk_create(
        models.Product(sku="p-%d" % n, name="Product %d" % n, price=Decimal(n) / 4, stock=n,
                       available_from=date(2026, 1, 1) + timedelta(days=n), warranty=timedelta(days=365, seconds=n))
        for n in range(50)
    )
    models.Product.objects.bulk_create(
        [models.Product(sku="p-1", name="Product one", price=1)],
        update_conflicts=True, unique_fields=["sku"], update_fields=["name", "price"],
    )
    for product in products[:20]:
        product.tags.set(tags[: 1 + product.pk % 3])
    products[0].tags.clear()
    for n in range(30):
        order = models.Order.objects.create(customer=(ann, bob)[n % 2], note="order %d" % n, client="192.0.2.%d" % n)
        order.lines.bulk_create(models.OrderLine(order=order, product=product) for product in products[n:n + 3])
    models.OrderLine.objects.filter(order__customer=bob).update(quantity=F("quantity") + 1)
    models.Product.objects.bulk_update([models.Product(pk=p.pk, stock=p.stock * 2) for p in products], ["stock"])
    models.Document.objects.bulk_create(models.Document(customer=bob, content=bytes([n, 0, 255]), score=n / 7) for n in range(10))
    with transaction.atomic():
        try:
            with transaction.atomic():
                models.Customer.objects.create(name="again", email="ann@example.com")
            expect(False, "an email that is taken is refused")
        except IntegrityError:
            models.Customer.objects.filter(pk=ann.pk).update(name="Ann again")
    try:
        with transaction.atomic():
            models.Customer.objects.all().delete()
            raise KeyError("changed my mind")
    except KeyError:
        pass
    # Takes orders and lines along, and leaves documents behind.
    bob.delete()
    expect(models.Order.objects.count() == 15 and models.Document.objects.filter(customer=None).count() == 10, "cascades")


def second():
    customer = models.Customer.objects.create(name="Dora", email="dora@example.com")
    customer.refresh_from_db()
    expect(customer.seen is not None and customer.shown == "DORA" and customer.active, "defaults of the database")
    expect(models.Customer.objects.filter(active=False).exists(), "the migration has changed rows")
    models.Product.objects.filter(sku="p-2").update(price=Decimal("2.1250"), colours=["green"])
    order = models.Order.objects.create(customer=customer, remarks="first", express=True)
    product = models.Product.objects.get(sku="p-3")
    line, made = models.Line.objects.get_or_create(order=order, product=product, defaults={"quantity": 2**40})
    expect(made, "a new line")
    line.discount = Decimal("0.15")
    line.save()
    models.Invoice.objects.create(order=order, total=Decimal("19.99"))
    models.Tag.objects.create(name="labelled").product_set.add(product)
    models.Document.objects.update(score="many")
    models.Customer.objects.bulk_create(
        [models.Customer(name="Ann the third", email="ann@example.com")],
        update_conflicts=True, unique_fields=["email"], update_fields=["name"],
    )
    models.Order.objects.exclude(pk=order.pk).order_by("pk").first().delete()


def edit(client, path, data, what):
    answer = client.post("/admin/" + path, data)
    expect(answer.status_code == 302, "%s: %s" % (what, answer.content[-2000:] if answer.status_code == 200 else answer))


def edit_in_admin():
    """The forms of the administration, through all of Django."""
    User.objects.filter(username="boss").delete()
    client = Client()
    User.objects.create_superuser("boss", "boss@example.com", "secret")
    expect(client.login(username="boss", password="secret"), "login")
    edit(client, "shop/tag/add/", {"name": "by hand %s" % sys.argv[1]}, "add")
    tag = models.Tag.objects.get(name="by hand %s" % sys.argv[1])
    edit(client, "shop/tag/%d/change/" % tag.pk, {"name": "corrected %s" % sys.argv[1]}, "change")
    edit(client, "shop/tag/%d/delete/" % tag.pk, {"post": "yes"}, "delete")
    order = models.Order.objects.order_by("pk").first()
    edit(client, "shop/order/", {"action": "delete_selected", "_selected_action": [order.pk], "post": "yes"}, "delete with cascade")
    expect(not models.Order.objects.filter(pk=order.pk).exists(), "the order is gone")
    client.logout()


{"1": first, "2": second}[sys.argv[1]]()
edit_in_admin()
