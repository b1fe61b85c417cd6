"""`--ray [ADDRESS]`: the address may be left out."""

from typing import Annotated

import pytest
import typer
from regnet.cli.ray_option import Ray, RayCommand
from typer.testing import CliRunner


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        ("photos", "None photos"),
        ("photos --ray", "local photos"),
        ("--ray photos", "local photos"),
        ("--ray local", "local "),
        ("--ray auto photos", "auto photos"),
        ("--ray head:6379 photos", "head:6379 photos"),
        ("--ray 10.0.0.1:6379 photos", "10.0.0.1:6379 photos"),
        ("--ray [::1]:6379", "[::1]:6379 "),
        ("--ray ray://head.example.org:10001 a b", "ray://head.example.org:10001 a b"),
        ("--ray=ray://head:10001 a", "ray://head:10001 a"),
        ("--ray s3://bucket/photos", "local s3://bucket/photos"),
        ("--ray camera:0", "local camera:0"),
        ("--ray ./auto", "local ./auto"),
        ("--ray -n 3 a", "local a"),
        ("-- --ray", "None --ray"),
    ],
)
def test_the_word_after_ray_is_its_value_where_it_looks_like_an_address(
    arguments: str, printed: str
) -> None:
    app = typer.Typer()

    @app.command(cls=RayCommand)
    def show(
        sources: Annotated[list[str] | None, typer.Argument()] = None,
        n: Annotated[int, typer.Option("-n")] = 0,
        ray: Ray = None,
    ) -> None:
        typer.echo(f"{ray} {' '.join(sources or [])}")

    done = CliRunner().invoke(app, arguments.split())
    assert done.exit_code == 0, done.output
    assert done.output.rstrip("\n") == printed
