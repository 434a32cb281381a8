//! `in_cidr(address, block)`: whether an address as the log writes it lies in a block.

use datafusion::{
    arrow::{
        array::{Array as _, ArrayRef, AsArray as _, BooleanArray},
        datatypes::DataType,
    },
    error::{DataFusionError, Result},
    logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf},
};
use ipnet::IpNet;
use std::{net::IpAddr, sync::Arc};

/// The function.
pub(crate) fn function() -> ScalarUDF {
    let texts = vec![DataType::Utf8, DataType::Utf8];
    create_udf("in_cidr", texts, DataType::Boolean, Volatility::Immutable, Arc::new(evaluate))
}

fn evaluate(arguments: &[ColumnarValue]) -> Result<ColumnarValue> {
    let [addresses, blocks] = arguments else {
        return Err(DataFusionError::Plan("in_cidr takes an address and a block".into()));
    };
    let all_scalar = matches!((addresses, blocks), (ColumnarValue::Scalar(_), ColumnarValue::Scalar(_)));
    let arrays = ColumnarValue::values_to_arrays(arguments)?;
    let answers: ArrayRef = Arc::new(each(&arrays[0], &arrays[1])?);
    if all_scalar {
        return Ok(ColumnarValue::Scalar(datafusion::common::ScalarValue::try_from_array(&answers, 0)?));
    }
    Ok(ColumnarValue::Array(answers))
}

/// Null where either is null or the address is none.
fn each(addresses: &ArrayRef, blocks: &ArrayRef) -> Result<BooleanArray> {
    let (addresses, blocks) = (addresses.as_string::<i32>(), blocks.as_string::<i32>());
    let mut known: Option<(&str, IpNet)> = None;
    (0..addresses.len())
        .map(|row| {
            if addresses.is_null(row) || blocks.is_null(row) {
                return Ok(None);
            }
            let text = blocks.value(row);
            let block = match known {
                Some((same, block)) if same == text => block,
                _ => block_of(text)?,
            };
            known = Some((text, block));
            Ok(addresses.value(row).parse::<IpAddr>().ok().map(|ip| block.contains(&ip.to_canonical())))
        })
        .collect()
}

fn block_of(text: &str) -> Result<IpNet> {
    let address = || text.parse::<IpAddr>().map(IpNet::from).ok();
    text.parse().ok().or_else(address).ok_or_else(|| {
        DataFusionError::Execution(format!("in_cidr: `{text}` is no block; write one like 10.0.0.0/8 or fd00::/8"))
    })
}
