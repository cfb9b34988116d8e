-- Made once, beside the database "prefect", when PostgreSQL first starts.
CREATE DATABASE mlflow;
CREATE DATABASE mlflow_auth;
