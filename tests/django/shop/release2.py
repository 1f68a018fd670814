import uuid

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now, Upper


class Customer(models.Model):
    name = models.CharField(max_length=200)
    email = models.EmailField(unique=True)
    profile = models.JSONField(default=dict)
    created = models.DateTimeField(auto_now_add=True)
    active = models.BooleanField(default=True)
    seen = models.DateTimeField(db_default=Now())
    shown = models.GeneratedField(expression=Upper("name"), output_field=models.TextField(), db_persist=True)


class Tag(models.Model):
    name = models.CharField(max_length=30, unique=True)

    class Meta:
        db_table = "labels"


class Product(models.Model):
    sku = models.SlugField(unique=True)
    name = models.CharField(max_length=100)
    price = models.DecimalField(max_digits=12, decimal_places=4)
    available_from = models.DateField(null=True)
    warranty = models.DurationField(null=True)
    tags = models.ManyToManyField(Tag)
    colours = ArrayField(models.CharField(max_length=20), default=list)

    class Meta:
        constraints = [models.CheckConstraint(condition=models.Q(price__gte=0), name="price_is_not_negative")]


class Order(models.Model):
    customer = models.ForeignKey(Customer, on_delete=models.CASCADE)
    placed = models.DateTimeField(auto_now_add=True)
    remarks = models.TextField(blank=True)
    client = models.GenericIPAddressField(null=True)
    express = models.BooleanField(default=False)

    class Meta:
        indexes = [models.Index(fields=["placed"], name="order_placed")]


class Line(models.Model):
    order = models.ForeignKey(Order, on_delete=models.CASCADE, related_name="lines")
    product = models.ForeignKey(Product, on_delete=models.PROTECT)
    quantity = models.BigIntegerField(default=1)
    discount = models.DecimalField(max_digits=4, decimal_places=2, default="0.00")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["order", "product"], name="one_line_each")]


class Document(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    customer = models.ForeignKey(Customer, null=True, on_delete=models.SET_NULL)
    content = models.BinaryField()
    score = models.TextField(default="0")


class Invoice(models.Model):
    order = models.OneToOneField(Order, on_delete=models.CASCADE)
    total = models.DecimalField(max_digits=12, decimal_places=2)
