"""The environments of the pipeline file: where releases go, and how they get there."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic.json_schema import SkipJsonSchema

from penstock.parts import Part
from penstock.values import Branches, CommandText, Flag, Seconds, Texts, VariableNames, Variables, wrong


class Migrate(Part):
    """The command that brings an environment's database to what a package needs, before its replicas start."""

    run: CommandText = Field(description="The command, once per package and environment.")
    timeout: Seconds = Field(default=600.0, description="How long it may take.")
    lock_timeout: Seconds = Field(default=10.0, description="How long a statement may wait for a lock of PostgreSQL.")
    contract: Flag = Field(default=False, description="Whether code from before may not work on what it leaves.")


def _as_migrate(value: Any) -> Any:
    return {"run": value} if isinstance(value, str) else value


class Environment(Part):
    """A place that releases go to."""

    name: SkipJsonSchema[str]
    port: Annotated[int, Field(strict=True, ge=1, le=65535)] = Field(description="Where the environment answers.")
    replicas: Annotated[int, Field(strict=True, ge=1, le=64)] = Field(default=1, description="Processes that serve it.")
    needs: Texts = Field(default=(), description="Environments that must be released to first.")
    branches: Branches | None = Field(
        default=None, description="Branches that are released here; absent: the default branch."
    )
    variables: Variables = Field(default={}, description="Variables of this environment, over the pipeline's.")
    secrets: VariableNames = Field(
        default=(), description="Secrets that what serves here gets, as variables of these names."
    )
    placed_as: Literal["process", "container"] = Field(
        default="process", alias="as", description="Whether the package is served as it is, or as an image of its own."
    )
    migrate: Annotated[Migrate, BeforeValidator(_as_migrate, json_schema_input_type=str | Migrate)] | None = Field(
        default=None, description="A command that runs once per package, before its replicas start."
    )
    migrate_down: CommandText | None = Field(
        default=None, description="The way back of migrate, which runs only where a person asks for it."
    )

    @model_validator(mode="after")
    def _has_a_way_up(self) -> Self:
        if self.migrate_down is not None and self.migrate is None:
            raise wrong('"migrate_down" needs a migrate: add migrate: COMMAND', "migrate_down", lacks=("migrate",))
        return self
