//! Schemas of bodies, collected from the types that are serialised.

use utoipa::ToSchema;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema as OpenApiSchema;

type Collected = Vec<(String, RefOr<OpenApiSchema>)>;

/// A type's schema, by function pointer so that it can stand in a table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schema {
    schema: fn() -> RefOr<OpenApiSchema>,
    collect: fn(&mut Collected),
}

/// The schema of a type.
pub(crate) fn of<T: ToSchema>() -> Schema {
    Schema {
        schema: T::schema,
        collect: T::schemas,
    }
}

/// The schema of a generic type `L` over `T`: its derived collection leaves `T` itself out.
pub(crate) fn list<L: ToSchema, T: ToSchema>() -> Schema {
    Schema {
        schema: L::schema,
        collect: |into| {
            into.push((T::name().into_owned(), T::schema()));
            T::schemas(into);
        },
    }
}

impl Schema {
    /// The schema itself, in place.
    pub(crate) fn inline(self) -> RefOr<OpenApiSchema> {
        (self.schema)()
    }

    /// Adds every schema that it refers to.
    pub(crate) fn collect(self, into: &mut Collected) {
        (self.collect)(into);
    }
}
