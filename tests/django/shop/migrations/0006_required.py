from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("shop", "0005_data")]

    operations = [migrations.AlterField("order", "express", models.BooleanField(default=False))]
