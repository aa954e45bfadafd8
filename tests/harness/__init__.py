"""What is tested of every family: one mixin a topic, fed by the family's `FamilySpec`."""
