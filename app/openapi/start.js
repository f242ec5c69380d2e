// Starts Swagger UI. In a file, because the page's policy lets no script run that is written into the page.
SwaggerUIBundle({
  url: "/docs/openapi.json",
  dom_id: "#swagger-ui",
  validatorUrl: null, // else another host would be shown the description
  deepLinking: true,
  displayRequestDuration: true,
  defaultModelsExpandDepth: 0,
});
