"""The `nn.Module`s that methods insert into a backbone."""
