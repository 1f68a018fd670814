"""Rows changed by a migration, and what can be demanded of them after it."""

from django.db import migrations, models


def fill(apps, schema_editor):
    apps.get_model("shop", "Order").objects.filter(express=None).update(express=False)
    product = apps.get_model("shop", "Product")
    for number, row in enumerate(product.objects.order_by("pk")):
        row.colours = ["red", "blue"][: number % 3]
        row.save(update_fields=["colours"])
    order = apps.get_model("shop", "Order")
    apps.get_model("shop", "Customer").objects.exclude(pk__in=order.objects.values("customer_id")).update(active=False)


class Migration(migrations.Migration):
    dependencies = [("shop", "0004_index")]

    operations = [
        migrations.RunPython(fill, migrations.RunPython.noop),
        migrations.RemoveField("product", "stock"),
        migrations.AddConstraint(
            "product", models.CheckConstraint(condition=models.Q(price__gte=0), name="price_is_not_negative")
        ),
    ]
