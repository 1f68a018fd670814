"""Tables that get another name, and one that is new."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("shop", "0002_columns")]

    operations = [
        migrations.RenameModel("OrderLine", "Line"),
        migrations.AlterModelTable("tag", "labels"),
        migrations.AlterField("line", "quantity", models.BigIntegerField(default=1)),
        migrations.AddField("line", "discount", models.DecimalField(decimal_places=2, default="0.00", max_digits=4)),
        migrations.CreateModel(
            name="Invoice",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("total", models.DecimalField(decimal_places=2, max_digits=12)),
                ("order", models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, to="shop.order")),
            ],
        ),
    ]
