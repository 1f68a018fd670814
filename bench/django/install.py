"""usage: install.py DSN

Puts the triggers of django-pghistory on the tables of the benchmark in the database of DSN, and prints the names of the tables that they fill.
Everything but the models is the package's own doing: its migrations, its event tables, its triggers.
Run by bench/run, with the Python that scripts/django has made for requirements.txt.
"""

import sys

import django
import psycopg.conninfo
from django.conf import settings


def database(dsn):
    """Django's form of a connection string of libpq's."""
    options = psycopg.conninfo.conninfo_to_dict(dsn)
    return {"ENGINE": "django.db.backends.postgresql", "NAME": options.pop("dbname"), "OPTIONS": options}


def main(dsn):
    settings.configure(
        DATABASES={"default": database(dsn)},
        INSTALLED_APPS=["django.contrib.contenttypes", "pgtrigger", "pghistory", "history"],
        USE_TZ=True,
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    )
    django.setup()
    from django.apps import apps
    from django.core.management import call_command

    # The event tables belong to an app without migrations, so they are made as the models say.
    call_command("migrate", verbosity=0, interactive=False, run_syncdb=True)
    call_command("pgtrigger", "install", verbosity=0)
    for model in apps.get_app_config("history").get_models():
        if hasattr(model, "pgh_tracked_model"):
            print(model._meta.db_table)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
