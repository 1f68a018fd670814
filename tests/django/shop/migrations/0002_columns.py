"""Columns that come with a default, are renamed, get another type, are computed."""

import django.contrib.postgres.fields
from django.db import migrations, models
from django.db.models.functions import Now, Upper


class Migration(migrations.Migration):
    dependencies = [("shop", "0001_initial")]

    operations = [
        migrations.AddField("customer", "active", models.BooleanField(default=True)),
        migrations.AddField("customer", "seen", models.DateTimeField(db_default=Now())),
        migrations.AlterField("customer", "name", models.CharField(max_length=200)),
        migrations.AddField(
            "customer", "shown",
            models.GeneratedField(expression=Upper("name"), output_field=models.TextField(), db_persist=True),
        ),
        migrations.AlterField("product", "price", models.DecimalField(decimal_places=4, max_digits=12)),
        migrations.AddField(
            "product", "colours",
            django.contrib.postgres.fields.ArrayField(models.CharField(max_length=20), default=list, size=None),
        ),
        migrations.RenameField("order", "note", "remarks"),
        migrations.AlterField("document", "score", models.TextField(default="0")),
        migrations.AlterField("tag", "id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
    ]
