from django.contrib import admin

from . import models

admin.site.register([models.Customer, models.Tag, models.Product, models.Order, models.Document])
